"""What measuring one call of the kernels found."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Outcome:
    """Errors are ‖found - truth‖ / ‖truth‖ of the output and, if there is a backward pass, of dq, dk and dv."""

    case: str
    half: bool
    """Whether the dtype is fp16 or bf16."""
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    """Those of PyTorch's SDPA."""
    faults: list[str] = field(default_factory=list)
    """What is wrong whatever the errors: numbers that are not finite, other bits on a second run …"""
