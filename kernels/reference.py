"""Attention as the plain mathematics: the yardstick for every other backend, in any dtype, float64 included.

Shapes: B batch, H query heads, G key and value heads (H a multiple of G), T queries, S keys, D head width,
N tokens of documents laid end to end.

    attention(q, k, v) = softmax(scale · q kᵀ + bias, over the visible keys) v        (Vaswani et al. 2017, eq. 1)

A query that sees no key gives 0, and gradients of 0.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from kernels.masks import visible_keys


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
) -> Tensor:
    """q (B, H, T, D); k, v (B, G, S, D) -> (B, H, T, D), all in q's dtype. See `kernels.attention.attention`."""
    group = q.shape[1] // k.shape[1]
    k_BHSD, v_BHSD = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    scores_BHTS = q @ k_BHSD.transpose(-2, -1) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if bias is not None:
        scores_BHTS = scores_BHTS + bias
    hidden = scores_BHTS.isneginf()
    visible = visible_keys(q.shape[2], k.shape[2], causal, window, key_lengths, q.device)
    if visible is not None:
        hidden = hidden | ~visible
    # The lowest finite number rather than -inf: a row without visible keys stays finite, forward and backward.
    scores_BHTS = scores_BHTS.masked_fill(hidden, torch.finfo(q.dtype).min)
    weights_BHTS = scores_BHTS.softmax(-1).masked_fill(hidden, 0.0)
    return functional.dropout(weights_BHTS, dropout) @ v_BHSD if dropout else weights_BHTS @ v_BHSD


def attention_packed(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor,
    *,
    causal: bool,
    window: int | None = None,
    scale: float | None = None,
) -> Tensor:
    """q (N, H, D); k, v (N, G, D); document i is rows cu_seqlens[i] to cu_seqlens[i + 1] -> (N, H, D)."""
    position_N = torch.arange(q.shape[0], device=q.device)
    document_N = torch.bucketize(position_N, cu_seqlens.to(q.device), right=True)
    inside_N = (document_N > 0) & (document_N < len(cu_seqlens))
    together = (document_N[:, None] == document_N) & inside_N[:, None] & inside_N
    bias = torch.zeros(together.shape, dtype=q.dtype, device=q.device).masked_fill(~together, float("-inf"))
    heads_first = (x.transpose(0, 1)[None] for x in (q, k, v))
    return attention(*heads_first, causal=causal, window=window, bias=bias, scale=scale)[0].transpose(0, 1)


def attention_decode(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    lengths: Tensor,
    *,
    window: int | None = None,
    scale: float | None = None,
) -> Tensor:
    """q (B, H, D); caches (B, G, S, D), of which the first lengths[b] keys count -> (B, H, D)."""
    key = torch.arange(k_cache.shape[2], device=q.device)
    hidden_BS = key >= lengths[:, None]
    if window is not None:
        hidden_BS = hidden_BS | (key < lengths[:, None] - window)
    bias = torch.zeros(hidden_BS.shape, dtype=q.dtype, device=q.device).masked_fill(hidden_BS, float("-inf"))
    return attention(q[:, :, None], k_cache, v_cache, bias=bias[:, None, None], scale=scale)[:, :, 0]


def linear_cross_entropy(
    h_NC: Tensor, weight_VC: Tensor, targets_N: Tensor, *, ignored: int = -100, z_loss: float = 0.0
) -> Tensor:
    """Losses (N,) in the dtype of h; 0 where a target is ignored. See the door, `kernels.linear_cross_entropy`."""
    kept_N = targets_N != ignored
    logits_NV = h_NC @ weight_VC.T
    lse_N = logits_NV.logsumexp(-1)
    picked_N = logits_NV.gather(1, targets_N.where(kept_N, 0)[:, None])[:, 0]
    return (lse_N - picked_N + z_loss * lse_N**2).where(kept_N, 0.0)


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) ⊙ up for gate and up side by side, (N, 2F) -> (N, F) (Shazeer 2020, arXiv 2002.05202)."""
    gate_NF, up_NF = gate_up.chunk(2, -1)
    return gate_NF * torch.sigmoid(gate_NF) * up_NF


def rotary(x_BTHD: Tensor, cos: Tensor, signed_sin: Tensor) -> Tensor:
    """Heads (B, T, H, D) turned by the angles of `cos` and `signed_sin`. See the door, `kernels.rotary`."""
    first, second = x_BTHD.chunk(2, -1)
    c, s = (table.chunk(2, -1)[1] for table in (cos, signed_sin))
    return torch.cat((first * c - second * s, second * c + first * s), -1)
