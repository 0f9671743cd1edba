"""Attention through `torch.nn.functional.scaled_dot_product_attention`, with our meaning of masks."""

from __future__ import annotations

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
    """q (B, H, T, D); k, v (B, G, S, D) -> (B, H, T, D). See `kernels.attention.attention`."""
    T, S = q.shape[2], k.shape[2]
    grouped = q.shape[1] != k.shape[1]
    if causal and T == S and window is None and bias is None and key_lengths is None:
        return functional.scaled_dot_product_attention(q, k, v, None, dropout, True, scale=scale, enable_gqa=grouped)
    visible = visible_keys(T, S, causal and T > 1, window, key_lengths, q.device)
    mask = visible
    if bias is not None:
        mask = bias.to(q.dtype) if visible is None else bias.to(q.dtype).masked_fill(~visible, float("-inf"))
    if mask is not None:
        mask = mask.expand(q.shape[0], q.shape[1], T, S)
    y_BHTD = functional.scaled_dot_product_attention(q, k, v, mask, dropout, scale=scale, enable_gqa=grouped)
    if mask is None:
        return y_BHTD
    # Some of PyTorch's kernels average over all keys, or give NaN, where a query sees none.
    hidden = ~mask if mask.dtype == torch.bool else mask.detach().isneginf()
    blind = hidden.all(-1, keepdim=True)
    return y_BHTD.masked_fill(blind, 0.0)


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
    S = int(lengths.max()) if len(lengths) else 0
    if S == 0:
        return torch.zeros_like(q)
    key = torch.arange(S, device=q.device)
    visible_BS = key < lengths[:, None]
    if window is not None:
        visible_BS = visible_BS & (key >= lengths[:, None] - window)
    mask = visible_BS[:, None, None].expand(len(q), q.shape[1], 1, S)
    grouped = q.shape[1] != k_cache.shape[1]
    y_BHTD = functional.scaled_dot_product_attention(
        q[:, :, None], k_cache[:, :, :S], v_cache[:, :, :S], mask, scale=scale, enable_gqa=grouped
    )
    return y_BHTD[:, :, 0].masked_fill((lengths == 0)[:, None, None], 0.0)
