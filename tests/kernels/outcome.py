"""What measuring one call of the kernels found, and how exact is exact enough."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

SINGLE = 2e-6
"""What fp32 may be off, relative to the truth's norm."""
STEP = 2.0**-23
"""Between 1 and the next fp32 number. A constant in all scores cancels in the softmax, but not its rounding: a score of
200 keeps no digit below 200 · STEP, and its weight is wrong by that share, in any arithmetic in fp32."""
WORSE = 1.05
"""How many times PyTorch's error ours may be in half precision."""
RESULTS = ("out", "dq", "dk", "dv")


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
    constant: float = 0.0
    """What all scores have in common; such calls must be as exact as PyTorch's in fp32 too."""


def complaints(outcome: Outcome, names: Sequence[str] = RESULTS, alone: bool = True) -> list[str]:
    """What is wrong with one case.

    In half precision the two roundings differ by chance, so PyTorch's error bounds ours over a case's results together
    (`alone`), and each with some room; `drift` holds each result to the bound over all cases of a group.
    """
    found = list(outcome.faults)
    single = SINGLE + 2 * STEP * abs(outcome.constant)
    for name, ours, theirs in zip(names, outcome.ours, outcome.theirs, strict=False):
        limit = 1.3 * theirs + SINGLE if outcome.half else single
        if not ours <= limit:
            found.append(f"{name} is off by {ours:.2e}, PyTorch's by {theirs:.2e}, and {limit:.2e} is allowed")
    ours, theirs = math.hypot(*outcome.ours), math.hypot(*outcome.theirs)
    if alone and (outcome.half or outcome.constant) and not ours <= WORSE * theirs + SINGLE:
        found.append(f"off by {ours:.2e} in all, PyTorch's by {theirs:.2e}")
    return found


def drift(outcomes: Iterable[Outcome]) -> dict[str, float]:
    """For each result the geometric mean over the half-precision cases of our error over PyTorch's."""
    ratios: dict[str, list[float]] = {}
    for outcome in outcomes:
        for name, ours, theirs in zip(RESULTS, outcome.ours, outcome.theirs, strict=False):
            if outcome.half and ours > SINGLE and theirs > SINGLE:
                ratios.setdefault(name, []).append(ours / theirs)
    return {name: math.exp(sum(map(math.log, found)) / len(found)) for name, found in ratios.items()}
