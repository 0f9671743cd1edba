"""Attention by the Triton kernels, with the signatures of the door, for what `refusal` and the door let pass: bias
without a gradient, no dropout, a positive scale.

Shapes: B batch, H query heads, G key and value heads, T queries, S keys, D head width, N tokens of packed documents.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels import configs
from kernels import triton_attention as kernels
from kernels.choice import Served, guarded
from kernels.triton_decode import attention_decode
from kernels.triton_packed import tile_table

__all__ = ["attention", "attention_decode", "attention_packed", "refusal"]

LOG2E = 1.4426950408889634
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
DELTA_ROWS = 64
PLAIN_ROWS = 128
"""Lengths that are multiples of this fill the tiles of every configuration."""
BIAS_STEP = 16
"""Triton knows of a stride only whether it is a multiple of this; if so, one address serves several numbers."""


def refusal(device: torch.device, dtype: torch.dtype, D: int) -> str:
    """Why the kernels do not take heads of this dtype and width on this device; empty when they do."""
    if device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) < (8, 0):
        return "the GPU is older than Ampere"
    if device.type != "cuda" and not triton.knobs.runtime.interpret:
        return f"Triton makes code for GPUs, not for {device.type}"
    if dtype not in DTYPES:
        return f"it takes no {str(dtype).removeprefix('torch.')}"
    if not 16 <= D <= 256:
        return f"it takes heads of 16 to 256 columns, not {D}"
    return ""


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    window: int | None = None,
    bias: Tensor | None = None,
    key_lengths: Tensor | None = None,
    dropout: float = 0.0,
    scale: float | None = None,
    guard: Served | None = None,
) -> Tensor:
    """q (B, H, T, D); k, v (B, G, S, D) -> (B, H, T, D), laid out as (B, T, H, D). See the door.

    guard: what to switch off should a kernel of the backward pass fail, PyTorch then finding the gradients; when None,
    it raises what it raises.
    """
    assert not dropout and (scale is None or scale > 0)
    if bias is not None:
        bias = _in_even_rows(bias, k.shape[2]).expand(q.shape[0], q.shape[1], q.shape[2], k.shape[2])
    if key_lengths is not None:
        key_lengths = key_lengths.to(q.device)
    return _Attention.apply(q, k, v, bias, key_lengths, None, causal, window, scale, guard)


def attention_packed(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor,
    *,
    causal: bool,
    window: int | None = None,
    scale: float | None = None,
    guard: Served | None = None,
) -> Tensor:
    """q (N, H, D); k, v (N, G, D); document i is rows cu_seqlens[i] to cu_seqlens[i + 1] -> (N, H, D).

    guard: as for `attention`.
    """
    heads_first = (x.transpose(0, 1)[None] for x in (q, k, v))
    y_1HND = _Attention.apply(*heads_first, None, None, cu_seqlens.to(q.device), causal, window, scale, guard)
    return y_1HND[0].transpose(0, 1)


class _Attention(torch.autograd.Function):
    """`documents` is cu_seqlens, with a batch of 1, or None."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias: Tensor | None,
        key_lengths: Tensor | None,
        documents: Tensor | None,
        causal: bool,
        window: int | None,
        scale: float | None,
        guard: Served | None,
    ) -> Tensor:
        q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
        ctx.causal, ctx.window, ctx.guard = causal, window, guard
        ctx.scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
        out, lse = _forward(q, k, v, bias, key_lengths, documents, causal, window, ctx.scale)
        ctx.save_for_backward(q, k, v, out, lse, bias, key_lengths, documents)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        dout = dout if dout.stride(-1) == 1 else dout.contiguous()
        q, k, v, out, lse, bias, key_lengths, documents = ctx.saved_tensors
        options = (dout, ctx.causal, ctx.window, ctx.scale)

        def ours() -> tuple[Tensor, ...]:
            return _backward(q, k, v, out, lse, bias, key_lengths, documents, *options)

        def pytorch() -> tuple[Tensor, ...]:
            return _gradients_by_pytorch(q, k, v, bias, key_lengths, documents, *options)

        gradients = ours() if ctx.guard is None else guarded(ctx.guard, ours, pytorch)
        return (*gradients, None, None, None, None, None, None, None)


def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    key_lengths: Tensor | None,
    documents: Tensor | None,
    causal: bool,
    window: int | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """The output and LSE (B, H, T), in base 2."""
    B, H, T, _ = q.shape
    out = _like(q, zeros=documents is not None)
    lse = torch.full((B, H, T), float("inf"), dtype=torch.float32, device=q.device)
    if _nothing(q, k, documents):
        return out.zero_(), lse
    config, table, tiles = _plan("forward", q, k, bias, key_lengths, documents, causal, window)
    with torch.cuda.device_of(q):
        kernels.forward[(tiles * B * H,)](
            q, k, v, out, lse, bias, key_lengths, table,
            *_strides(q, k, v, out), *_bias_strides(bias), H, T, k.shape[2], T, tiles, window or 0, scale * LOG2E,
            **_options(config, q, k, bias, key_lengths, documents, causal, window),
        )  # fmt: skip
    return out, lse


def _backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    bias: Tensor | None,
    key_lengths: Tensor | None,
    documents: Tensor | None,
    dout: Tensor,
    causal: bool,
    window: int | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """dq, dk, dv."""
    (B, H, T, D), (G, S) = q.shape, k.shape[1:3]
    dq, dk, dv = (_like(x, zeros=documents is not None) for x in (q, k, v))
    if _nothing(q, k, documents):
        return dq.zero_(), dk.zero_(), dv.zero_()
    delta = torch.empty_like(lse)
    first, rest = configs.pieces(D)
    inputs = (q, k, v, dout, lse, delta, bias, key_lengths)
    numbers = (H, T, S, T)
    with torch.cuda.device_of(q):
        kernels.backward_delta[(triton.cdiv(T, DELTA_ROWS), B * H)](
            out, dout, delta, *_strides(out, dout), H, T, D=D, FIRST=first, REST=rest, BLOCK_M=DELTA_ROWS
        )
        config, table, tiles = _plan("backward_keys", q, k, bias, key_lengths, documents, causal, window)
        kernels.backward_keys[(tiles * B * G,)](
            *inputs, table, dk, dv, *_strides(q, k, v, dout), *_bias_strides(bias), *_strides(dk, dv),
            *numbers, tiles, window or 0, scale, scale * LOG2E,
            **_options(config, q, k, bias, key_lengths, documents, causal, window),
        )  # fmt: skip
        config, table, tiles = _plan("backward_queries", q, k, bias, key_lengths, documents, causal, window)
        kernels.backward_queries[(tiles * B * H,)](
            *inputs, table, dq, *_strides(q, k, v, dout), *_bias_strides(bias), *_strides(dq),
            *numbers, tiles, window or 0, scale, scale * LOG2E,
            **_options(config, q, k, bias, key_lengths, documents, causal, window),
        )  # fmt: skip
    return dq, dk, dv


def _gradients_by_pytorch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    key_lengths: Tensor | None,
    documents: Tensor | None,
    dout: Tensor,
    causal: bool,
    window: int | None,
    scale: float,
) -> tuple[Tensor, ...]:
    """dq, dk, dv through the door, which no longer leads here once a kernel is switched off."""
    from kernels import attention as by_door
    from kernels import attention_packed as packed_by_door

    leaves = q, k, v = [x.detach().requires_grad_() for x in (q, k, v)]
    with torch.enable_grad():
        if documents is None:
            out = by_door(q, k, v, causal=causal, window=window, bias=bias, key_lengths=key_lengths, scale=scale)
        else:
            q_NHD, k_NGD, v_NGD = (x[0].transpose(0, 1) for x in leaves)
            out_NHD = packed_by_door(q_NHD, k_NGD, v_NGD, documents, causal=causal, window=window, scale=scale)
            out = out_NHD.transpose(0, 1)[None]
    return torch.autograd.grad(out, leaves, dout)


def _plan(
    kernel: str,
    q: Tensor,
    k: Tensor,
    bias: Tensor | None,
    key_lengths: Tensor | None,
    documents: Tensor | None,
    causal: bool,
    window: int | None,
) -> tuple[configs.Config, Tensor | None, int]:
    """How the kernel is cut, the table of tiles of packed documents, and the number of tiles of one head."""
    of_keys = kernel == "backward_keys"
    rows = k.shape[2] if of_keys else q.shape[2]
    length = k.shape[2] if documents is None else k.shape[2] // (len(documents) - 1)
    even = q.shape[2] % PLAIN_ROWS == 0 and k.shape[2] % PLAIN_ROWS == 0
    plain = even and bias is None and key_lengths is None and documents is None and window is None
    config = configs.choose(kernel, configs.arch_of(q.device), q.shape[3], q.dtype, causal, length, plain)
    block = config.block_n if of_keys else config.block_m
    if documents is None:
        return config, None, triton.cdiv(rows, block)
    order = ("early" if of_keys else "late") if causal else "long"
    table = tile_table(documents, rows, block, order)
    return config, table, len(table)


def _options(
    config: configs.Config,
    q: Tensor,
    k: Tensor,
    bias: Tensor | None,
    key_lengths: Tensor | None,
    documents: Tensor | None,
    causal: bool,
    window: int | None,
) -> dict[str, Any]:
    """What the kernels are specialised on, and how they are launched."""
    first, rest = configs.pieces(q.shape[3])
    known = documents is None and key_lengths is None  # how many keys there are, by shapes alone
    return {
        "GROUP": q.shape[1] // k.shape[1],
        "D": q.shape[3],
        "FIRST": first,
        "REST": rest,
        "BLOCK_M": config.block_m,
        "BLOCK_N": config.block_n,
        "CAUSAL": causal,
        "WINDOWED": window is not None,
        "BIASED": bias is not None,
        "PACKED": documents is not None,
        "EVEN_T": documents is None and q.shape[2] % config.block_m == 0,
        "EVEN_S": known and k.shape[2] % config.block_n == 0,
        "num_warps": config.warps,
        "num_stages": config.stages,
    }


def _like(x_BHTD: Tensor, zeros: bool) -> Tensor:
    """A tensor of its shape laid out as (B, T, H, D), which a model reads as rows of tokens without a copy."""
    B, H, T, D = x_BHTD.shape
    new = torch.zeros if zeros else torch.empty
    return new((B, T, H, D), dtype=x_BHTD.dtype, device=x_BHTD.device).transpose(1, 2)


def _in_even_rows(bias: Tensor, S: int) -> Tensor:
    """A bias broadcastable to (B, H, T, S) as (…, S), its last axis dense and each row at a multiple of BIAS_STEP.

    A copy where it is not so yet, as with lengths that are no such multiple: a thread that needs an address for each
    score has no registers left to compute with.
    """
    bias = bias[(None,) * (4 - bias.dim())]
    bias = bias.expand(*bias.shape[:3], S)
    if bias.stride(3) == 1 and all(stride % BIAS_STEP == 0 for stride in bias.stride()[:3]):
        return bias
    even = bias.new_empty(*bias.shape[:3], triton.cdiv(S, BIAS_STEP) * BIAS_STEP)[..., :S]
    return even.copy_(bias)


def _nothing(q: Tensor, k: Tensor, documents: Tensor | None) -> bool:
    return q.numel() == 0 or k.numel() == 0 or (documents is not None and len(documents) < 2)


def _strides(*tensors: Tensor) -> list[int]:
    return [x.stride(axis) for x in tensors for axis in range(3)]


def _bias_strides(bias: Tensor | None) -> tuple[int, ...]:
    return (0, 0, 0) if bias is None else bias.stride()[:3]
