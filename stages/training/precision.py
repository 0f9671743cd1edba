"""Which precision the arithmetic runs in, and why."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16mm", "bf16")
"""CPU features (x86, then Arm) with which bf16 matrix products run about twice as fast as fp32."""


class Precision(NamedTuple):
    """The dtype in which a model computes, its name in settings, and why it was chosen."""

    name: str
    dtype: torch.dtype
    why: str


def choose_precision(setting: str, device: torch.device) -> Precision:
    """The precision that `setting` (auto, fp32 or bf16) means on `device`."""
    if setting == "fp32":
        return Precision("fp32", torch.float32, "asked for")
    if setting == "bf16":
        return Precision("bf16", torch.bfloat16, "asked for")
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Precision("bf16", torch.bfloat16, "the GPU has bf16 tensor cores")
        return Precision("fp32", torch.float32, "the GPU has no bf16 tensor cores")
    found = cpu_features() & set(BF16_INSTRUCTIONS)
    if found:
        return Precision("bf16", torch.bfloat16, f"the CPU has {sorted(found)[0]}")
    return Precision("fp32", torch.float32, "the CPU has no bf16 instructions")


def cpu_features() -> set[str]:
    """The CPU's feature flags as Linux lists them; empty elsewhere."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return set()
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return set(value.split())
    return set()
