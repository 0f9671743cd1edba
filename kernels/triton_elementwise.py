"""SwiGLU and rotary positions in Triton, each one pass over memory forward and one backward.

Shapes: N rows, F feed-forward width; B batch, T tokens, H heads, D head width.

    swiglu    out = gate σ(gate) up,       dgate = g up σ(gate) (1 + gate (1 - σ(gate))),   dup = g gate σ(gate)
                                                                                 (Shazeer 2020, arXiv 2002.05202)
    rotary    (x₁, x₂) ← (x₁ cos - x₂ sin, x₂ cos + x₁ sin),   backward: the turn by the opposite angle
                                                                                  (Su et al. 2021, arXiv 2104.09864)

Arithmetic is in fp32 and rounded once. The backward of swiglu computes σ(gate) again, so only its input is kept; that
of rotary needs no input at all.
"""

# mypy: disable-error-code="no-untyped-def"
# A kernel's parameters are values of the GPU, which Python's types do not name.

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.choice import Served, guarded
from kernels.triton_backend import refusal as attention_refusal

BLOCK = 1024
"""Columns of one program of swiglu: four to eight loads of 16 bytes in flight for each of 128 threads."""
TILE = 2048
"""Numbers that one program of rotary turns: as many heads of one token as that holds."""
WARPS = 4


def refusal(device: torch.device, dtype: torch.dtype) -> str:
    """Why the kernels do not take this dtype on this device; empty when they do."""
    return attention_refusal(device, dtype, 64)


@triton.jit
def swiglu_forward(X, OUT, x_n, F, BLOCK: tl.constexpr):
    """OUT (N, F) = silu(X[:, :F]) X[:, F:], BLOCK columns of one row."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < F
    gate = tl.load(X + row * x_n + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(X + row * x_n + F + column, mask=inside, other=0.0).to(tl.float32)
    y = gate * tl.sigmoid(gate) * up
    tl.store(OUT + row * F + column, y.to(OUT.dtype.element_ty), mask=inside)


@triton.jit
def swiglu_backward(X, G, DX, x_n, g_n, F, BLOCK: tl.constexpr):
    """DX (N, 2F) from G (N, F), the gradient of OUT."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < F
    gate = tl.load(X + row * x_n + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(X + row * x_n + F + column, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(G + row * g_n + column, mask=inside, other=0.0).to(tl.float32)
    share = tl.sigmoid(gate)
    dgate = g * up * share * (1.0 + gate * (1.0 - share))
    dup = g * gate * share
    tl.store(DX + row * 2 * F + column, dgate.to(DX.dtype.element_ty), mask=inside)
    tl.store(DX + row * 2 * F + F + column, dup.to(DX.dtype.element_ty), mask=inside)


@triton.jit
def turn(
    X, COS, SIN, OUT, x_b, x_t, x_h, cos_b, cos_t, sin_b, sin_t, T, H,
    HALF: tl.constexpr, COLUMNS: tl.constexpr, HEADS: tl.constexpr, BACK: tl.constexpr,
):  # fmt: skip
    """OUT (B, T, H, D), dense: HEADS heads of one token, turned; BACK: by the opposite angle."""
    token = tl.program_id(0).to(tl.int64)
    b, t = token // T, token % T
    head = (tl.program_id(1) * HEADS + tl.arange(0, HEADS)).to(tl.int64)
    column = tl.arange(0, COLUMNS)
    cos = tl.load(COS + b * cos_b + t * cos_t + column, mask=column < HALF, other=0.0).to(tl.float32)[None, :]
    # The second half of the signed sines: the first is its negative.
    sin = tl.load(SIN + b * sin_b + t * sin_t + HALF + column, mask=column < HALF, other=0.0).to(tl.float32)[None, :]
    if BACK:
        sin = -sin
    inside = (head < H)[:, None] & (column < HALF)[None, :]
    places = X + b * x_b + t * x_t + head[:, None] * x_h + column[None, :]
    first = tl.load(places, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(places + HALF, mask=inside, other=0.0).to(tl.float32)
    results = OUT + (token * H + head[:, None]) * (2 * HALF) + column[None, :]
    tl.store(results, (first * cos - second * sin).to(OUT.dtype.element_ty), mask=inside)
    tl.store(results + HALF, (second * cos + first * sin).to(OUT.dtype.element_ty), mask=inside)


def swiglu(gate_up: Tensor, guard: Served | None = None) -> Tensor:
    """(N, 2F) -> (N, F). See the door, `kernels.swiglu`.

    guard: what to switch off should the backward kernel fail, PyTorch then finding the gradient; when None, it raises
    what it raises.
    """
    return _Swiglu.apply(gate_up, guard)


def rotary(x_BTHD: Tensor, cos: Tensor, signed_sin: Tensor, guard: Served | None = None) -> Tensor:
    """x (B, T, H, D) turned. See the door, `kernels.rotary`. guard: as for `swiglu`."""
    return _Rotary.apply(x_BTHD, cos, signed_sin, guard)


class _Swiglu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor, guard: Served | None) -> Tensor:
        gate_up = gate_up if gate_up.stride(-1) == 1 else gate_up.contiguous()
        ctx.save_for_backward(gate_up)
        ctx.guard = guard
        N, F = len(gate_up), gate_up.shape[1] // 2
        out_NF = gate_up.new_empty((N, F))
        if out_NF.numel():
            with torch.cuda.device_of(gate_up):
                swiglu_forward[N, triton.cdiv(F, BLOCK)](
                    gate_up, out_NF, gate_up.stride(0), F, BLOCK=BLOCK, num_warps=WARPS
                )
        return out_NF

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream_NF: Tensor) -> tuple[Tensor, None]:
        (gate_up,) = ctx.saved_tensors

        def pytorch() -> Tensor:
            from kernels import swiglu as by_door

            leaf = gate_up.detach().requires_grad_()
            with torch.enable_grad():
                return torch.autograd.grad(by_door(leaf), leaf, upstream_NF)[0]

        def ours() -> Tensor:
            return _swiglu_gradient(gate_up, upstream_NF)

        return ours() if ctx.guard is None else guarded(ctx.guard, ours, pytorch), None


def _swiglu_gradient(gate_up: Tensor, upstream_NF: Tensor) -> Tensor:
    N, F = upstream_NF.shape
    g_NF = upstream_NF if upstream_NF.stride(-1) == 1 else upstream_NF.contiguous()
    dgate_up = gate_up.new_empty((N, 2 * F))
    if dgate_up.numel():
        with torch.cuda.device_of(gate_up):
            swiglu_backward[N, triton.cdiv(F, BLOCK)](
                gate_up, g_NF, dgate_up, gate_up.stride(0), g_NF.stride(0), F, BLOCK=BLOCK, num_warps=WARPS
            )
    return dgate_up


class _Rotary(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BTHD: Tensor, cos: Tensor, signed_sin: Tensor, guard: Served | None) -> Tensor:
        ctx.save_for_backward(cos, signed_sin)
        ctx.guard = guard
        return _turned(x_BTHD, cos, signed_sin, False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream_BTHD: Tensor) -> tuple[Tensor | None, ...]:
        cos, signed_sin = ctx.saved_tensors

        def pytorch() -> Tensor:
            from kernels import rotary as by_door

            return by_door(upstream_BTHD, cos, -signed_sin)

        def ours() -> Tensor:
            return _turned(upstream_BTHD, cos, signed_sin, True)

        return ours() if ctx.guard is None else guarded(ctx.guard, ours, pytorch), None, None, None


def _turned(x_BTHD: Tensor, cos: Tensor, signed_sin: Tensor, back: bool) -> Tensor:
    B, T, H, D = x_BTHD.shape
    x_BTHD = x_BTHD if x_BTHD.stride(-1) == 1 else x_BTHD.contiguous()
    out_BTHD = x_BTHD.new_empty((B, T, H, D))
    if not out_BTHD.numel():
        return out_BTHD
    tables = [x if x.stride(-1) == 1 else x.contiguous() for x in (cos, signed_sin)]
    cos_BT1D, sin_BT1D = (x.expand(B, T, 1, D) for x in tables)
    columns = triton.next_power_of_2(D // 2)
    heads = min(triton.next_power_of_2(H), max(1, TILE // (2 * columns)))
    with torch.cuda.device_of(x_BTHD):
        turn[B * T, triton.cdiv(H, heads)](
            x_BTHD, cos_BT1D, sin_BT1D, out_BTHD, *x_BTHD.stride()[:3], *cos_BT1D.stride()[:2],
            *sin_BT1D.stride()[:2], T, H, HALF=D // 2, COLUMNS=columns, HEADS=heads, BACK=back, num_warps=WARPS,
        )  # fmt: skip
    return out_BTHD
