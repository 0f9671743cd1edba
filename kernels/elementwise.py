"""The doors to what stands between a transformer's matrix products and is worth a kernel: SwiGLU and rotary positions.

Counted in bytes that pass through memory for a token and a layer in bf16, forward and backward, by `python -m
benchmarks.traffic`, for Llama's shape of 1.1 B parameters (C 2,048, F 5,632, 32 query and 4 key heads of 64) and for
SmolLM2's of 135 M; saved: the time at an H100's 3.35 TB/s over that of the layer's products at 790 TFLOP/s (published).

                          1.1 B                           135 M
                  PyTorch  kernels   saved        PyTorch  kernels   saved
    SwiGLU       202.8 KB  90.1 KB    10 %        55.3 KB  24.6 KB    34 %
    rotary        74.5 KB  18.4 KB     5 %        25.3 KB   6.1 KB    21 %
    two norms     41.0 KB  41.0 KB     0 %        11.6 KB  11.6 KB     0 %

silu and its product are two passes, their backward three and a `cat`; a turn is three passes, and four backward. Norms
have no file: torch has LayerNorm, and since 2.9 RMSNorm, as one kernel each way, as it has GELU.

On a CPU PyTorch's own operations serve. The environment variable WORKBENCH_ELEMENTWISE (torch, triton) names a backend
to use wherever it can serve; it is read when a kind of call is first met.
"""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional

from kernels.choice import (
    INTERPRETED,
    NO_GPU,
    PASSED,
    Served,
    by_environment,
    failure,
    guarded,
    not_triton,
    record,
    unfit,
)

CALLS = ("swiglu", "rotary")
BACKENDS = ("torch", "triton")
VARIABLE = "WORKBENCH_ELEMENTWISE"

Kind = tuple[str, torch.device, torch.dtype, str]
"""What the choice depends on: call, device, dtype and why Triton cannot serve (or nothing)."""

_chosen: dict[Kind, str] = {}


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) ⊙ up (N, F) in its dtype, for (N, 2F) with gate in the first F columns and up in the others.

    It can be differentiated once where a kernel serves. Raises ValueError when it is no matrix of an even width.
    """
    if gate_up.ndim != 2 or gate_up.shape[1] % 2:
        raise ValueError(f"gate and up {tuple(gate_up.shape)} must be (N, 2F)")
    obstacle = _obstacle("swiglu", gate_up, gate_up.shape[1] // 2)
    if _backend(("swiglu", gate_up.device, gate_up.dtype, obstacle)) == "torch":
        return _swiglu(gate_up)
    served = Served("swiglu", gate_up.device, gate_up.dtype, gate_up.shape[1] // 2)
    return guarded(served, lambda: _kernels().swiglu(gate_up, served), lambda: _swiglu(gate_up))


def rotary(x_BTHD: Tensor, cos: Tensor, signed_sin: Tensor) -> Tensor:
    """x (B, T, H, D) with the pairs (x_i, x_{i + D/2}) of each head turned: x cos + roll(x, D / 2) signed_sin.

    cos, signed_sin: broadcastable to (B, T, 1, D), of one shape and x's dtype, without gradients; the halves of cos are
    equal and the first half of signed_sin is the negative of the second. It can be differentiated once where a kernel
    serves. Raises ValueError on an odd width.
    """
    if x_BTHD.shape[-1] % 2:
        raise ValueError(f"heads of {x_BTHD.shape[-1]} columns cannot be turned in pairs")
    obstacle = _obstacle("rotary", x_BTHD, x_BTHD.shape[-1])
    if _backend(("rotary", x_BTHD.device, x_BTHD.dtype, obstacle)) == "torch":
        return _rotary(x_BTHD, cos, signed_sin)
    served = Served("rotary", x_BTHD.device, x_BTHD.dtype, x_BTHD.shape[-1])
    fused = (x_BTHD, cos, signed_sin)
    return guarded(served, lambda: _kernels().rotary(*fused, served), lambda: _rotary(*fused))


def decide_usual_calls(where: torch.device) -> None:
    """Have the report name the backends of the usual calls on this device."""
    for call in CALLS:
        for dtype in (torch.float32, torch.bfloat16):
            _backend((call, where, dtype, _obstacle_on(call, where, dtype)))


def _swiglu(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, -1)
    return functional.silu(gate) * up


def _rotary(x_BTHD: Tensor, cos: Tensor, signed_sin: Tensor) -> Tensor:
    return torch.addcmul(x_BTHD * cos, x_BTHD.roll(x_BTHD.shape[-1] // 2, -1), signed_sin)


def _backend(kind: Kind) -> str:
    return _chosen.get(kind) or _choose(kind)


def _choose(kind: Kind) -> str:
    call, device, dtype, obstacle = kind
    name, why = ("torch", "PyTorch's own operations") if obstacle else ("triton", PASSED)
    why = not_triton(call, VARIABLE, device, why, obstacle)
    name, why = by_environment(VARIABLE, name, why, lambda asked: unfit(asked, BACKENDS, obstacle))
    record(call, device, dtype, name, why)
    return _chosen.setdefault(kind, name)


def _obstacle(call: str, x: Tensor, width: int) -> str:
    """Why the Triton kernels cannot take a call; empty when they can."""
    if x.device.type != "cuda" and not INTERPRETED:
        return NO_GPU
    return _obstacle_on(call, x.device, x.dtype) or failure(Served(call, x.device, x.dtype, width))


@cache
def _obstacle_on(call: str, device: torch.device, dtype: torch.dtype) -> str:
    """The same for what a call's sizes cannot change: the machine and the dtype."""
    if device.type != "cuda" and not INTERPRETED:
        return NO_GPU
    try:
        backend = _kernels()
    except ImportError as error:
        return f"Triton cannot be imported ({error})"
    reason = backend.refusal(device, dtype)
    if reason or device.type != "cuda":
        return str(reason)
    if os.environ.get(VARIABLE, "triton") not in ("", "triton"):
        return f"{VARIABLE} names another"
    return import_module("kernels.selftest").verdict(device, dtype, 0, call)


def _kernels() -> ModuleType:
    return import_module("kernels.triton_elementwise")
