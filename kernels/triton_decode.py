"""Attention of one new token a sequence over its KV cache, in Triton.

The query heads that share a key head are the rows of one tile, so that each key is read once. When there are fewer
pairs of sequence and key head than the chip has room for, the keys are split over several programs (Flash-Decoding,
Dao et al. 2023), whose partial results a second kernel adds up in a fixed order.
"""

# mypy: disable-error-code="no-untyped-def"
# A kernel's parameters are values of the GPU, which Python's types do not name.

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels import configs
from kernels.triton_attention import _load, _scores

LOG2E = 1.4426950408889634
MOST_SPLITS = 64
PROGRAMS_A_UNIT = 2
"""Programs for each multiprocessor of the chip that splitting aims at."""


@triton.jit
def decode(
    Q, K, V, LENGTHS, OUT, LSE, q_b, q_h, k_b, k_h, k_t, v_b, v_h, v_t, H, S, splits, window, scale_log2,
    GROUP: tl.constexpr, ROWS: tl.constexpr, D: tl.constexpr, FIRST: tl.constexpr, REST: tl.constexpr,
    BLOCK_N: tl.constexpr, WINDOWED: tl.constexpr,
):  # fmt: skip
    """OUT (B, H, splits, D) and LSE (B, H, splits), base 2, of one split of the keys of one key head."""
    head, split = tl.program_id(0), tl.program_id(1)
    key_heads = H // GROUP
    b, g = (head // key_heads).to(tl.int64), (head % key_heads).to(tl.int64)
    end = tl.minimum(tl.load(LENGTHS + b).to(tl.int32), S)
    begin = 0
    if WINDOWED:
        begin = tl.maximum(end - window, 0)
    share = tl.cdiv(tl.cdiv(end - begin, splits), BLOCK_N) * BLOCK_N
    lo = begin + split * share
    hi = tl.minimum(lo + share, end)

    row = tl.arange(0, ROWS)
    q, q_ = _load(Q + b * q_b + g * GROUP * q_h, 0, GROUP, q_h, D, FIRST, REST, ROWS, True)
    m = tl.full([ROWS], -float("inf"), tl.float32)
    ell = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, FIRST], tl.float32)
    acc_ = tl.zeros([ROWS, REST if REST > 0 else 16], tl.float32)
    for n in range(lo, hi, BLOCK_N):
        k, k_ = _load(K + b * k_b + g * k_h, n, hi, k_t, D, FIRST, REST, BLOCK_N, True)
        s = _scores(q, q_, k, k_, REST) * scale_log2
        s = tl.where((n + tl.arange(0, BLOCK_N) < hi)[None, :], s, -float("inf"))
        m_new = tl.maximum(m, tl.max(s, 1))
        p = tl.exp2(s - m_new[:, None])
        alpha = tl.exp2(m - m_new)
        ell = ell * alpha + tl.sum(p, 1)
        v, v_ = _load(V + b * v_b + g * v_h, n, hi, v_t, D, FIRST, REST, BLOCK_N, True)
        p = p.to(v.dtype)
        acc = tl.dot(p, v, acc * alpha[:, None], input_precision="ieee")
        if REST > 0:
            acc_ = tl.dot(p, v_, acc_ * alpha[:, None], input_precision="ieee")
        m = m_new

    seen = ell > 0.0
    inverse = (1.0 / tl.where(seen, ell, 1.0))[:, None]
    place = ((b * H + g * GROUP + row) * splits + split)[:, None]
    ours = (row < GROUP)[:, None]
    column = tl.arange(0, FIRST)[None, :]
    tl.store(OUT + place * D + column, (acc * inverse).to(OUT.dtype.element_ty), mask=ours)
    if REST > 0:
        column_ = FIRST + tl.arange(0, REST)[None, :]
        tl.store(OUT + place * D + column_, (acc_ * inverse).to(OUT.dtype.element_ty), mask=ours & (column_ < D))
    if splits > 1:
        lse = tl.where(seen, m + tl.log2(tl.where(seen, ell, 1.0)), -float("inf"))
        tl.store(LSE + (b * H + g * GROUP + row) * splits + split, lse, mask=row < GROUP)


@triton.jit
def combine(PARTS, LSE, OUT, splits, D: tl.constexpr, COLUMNS: tl.constexpr, SPLITS: tl.constexpr):
    """OUT (B·H, D) = Σ w PARTS with w = 2^LSE / Σ 2^LSE over the splits of one head; 0 where no split saw a key."""
    head = tl.program_id(0).to(tl.int64)
    split, column = tl.arange(0, SPLITS), tl.arange(0, COLUMNS)
    lse = tl.load(LSE + head * splits + split, mask=split < splits, other=-float("inf"))
    most = tl.max(lse, 0)
    weight = tl.exp2(lse - tl.where(most == -float("inf"), 0.0, most))
    total = tl.sum(weight, 0)
    weight = weight / tl.where(total > 0.0, total, 1.0)
    places = (head * splits + split)[:, None] * D + column[None, :]
    parts = tl.load(PARTS + places, mask=(split < splits)[:, None] & (column < D)[None, :], other=0.0)
    out = tl.sum(parts * weight[:, None], 0)
    tl.store(OUT + head * D + column, out.to(OUT.dtype.element_ty), mask=column < D)


def attention_decode(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    lengths: Tensor,
    *,
    window: int | None = None,
    scale: float | None = None,
    splits: int | None = None,
) -> Tensor:
    """q (B, H, D); caches (B, G, S, D), of which the first lengths[b] keys count -> (B, H, D). Has no gradient.

    splits: programs for the keys of one sequence and key head; as many as fill the chip when None.
    """
    (B, H, D), (G, S) = q.shape, k_cache.shape[1:3]
    if q.numel() == 0 or S == 0:
        return torch.zeros_like(q)
    q, k_cache, v_cache = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k_cache, v_cache))
    first, rest = configs.pieces(D)
    config = configs.choose("decode", configs.arch_of(q.device), D, q.dtype, False, S)
    splits = splits or _splits(q.device, B * G, triton.cdiv(S if window is None else min(S, window), config.block_n))
    out = torch.empty((B, H, D), dtype=q.dtype, device=q.device)
    parts = out if splits == 1 else torch.empty((B, H, splits, D), dtype=torch.float32, device=q.device)
    lse = torch.empty((B, H, splits), dtype=torch.float32, device=q.device)
    with torch.cuda.device_of(q):
        decode[(B * G, splits)](
            q, k_cache, v_cache, lengths.to(q.device), parts, lse,
            q.stride(0), q.stride(1), *k_cache.stride()[:3], *v_cache.stride()[:3],
            H, S, splits, window or 0, LOG2E * (1 / math.sqrt(D) if scale is None else scale),
            GROUP=H // G, ROWS=max(16, triton.next_power_of_2(H // G)), D=D, FIRST=first, REST=rest,
            BLOCK_N=config.block_n, WINDOWED=window is not None, num_warps=config.warps, num_stages=config.stages,
        )  # fmt: skip
        if splits > 1:
            columns, power = triton.next_power_of_2(D), triton.next_power_of_2(splits)
            combine[(B * H,)](parts, lse, out, splits, D=D, COLUMNS=columns, SPLITS=power, num_warps=4)
    return out


def _splits(device: torch.device, pairs: int, blocks: int) -> int:
    """Programs for one pair of sequence and key head: enough to fill the chip, each with four blocks or more."""
    units = torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
    return max(1, min(PROGRAMS_A_UNIT * units // pairs, blocks // 4, MOST_SPLITS))
