"""Attention in a handful of PyTorch operations: the fastest path on a CPU for short sequences.

Scale and mask ride in one `baddbmm`, so that the scores are written once; grouped query heads become more rows of the
same product, so that keys and values are not repeated. It serves the calls for which `serves` holds.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kernels.masks import additive_mask

NUMPY_KEYS = 512
"""Up to this many keys of a cache, numpy's product of many small fp32 matrices beats torch's: 32 sequences of 90 keys
with 4 heads of width 32 take 33 against 83 us, with 4 pairs of heads of width 64 58 against 136 (Zen 4, one thread)."""


Array = NDArray[np.float32]


def serves(T: int, S: int, causal: bool, window: int | None, has_bias: bool, has_lengths: bool, dropout: bool) -> bool:
    """Whether every query is sure to see a key, by a mask that depends on nothing but shapes."""
    return not (has_bias or has_lengths or dropout) and (T <= S or not (causal or window))


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
    """q (B, H, T, D); k, v (B, G, S, D) -> (B, H, T, D). Takes no bias, key_lengths or dropout."""
    assert bias is None and key_lengths is None and not dropout
    B, H, T, D = q.shape
    G, S = k.shape[1], k.shape[2]
    mask = additive_mask(T, S, causal, window, H // G, q.dtype, q.device)
    q3, k3, v3 = q.reshape(B * G, -1, D), k.reshape(B * G, S, D), v.reshape(B * G, S, D)
    scores = torch.baddbmm(mask, q3, k3.transpose(1, 2), alpha=1 / math.sqrt(D) if scale is None else scale)
    return torch.bmm(scores.softmax(-1), v3).view(B, H, T, D)


def attention_decode(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    lengths: Tensor,
    *,
    window: int | None = None,
    scale: float | None = None,
) -> Tensor:
    """q (B, H, D); caches (B, G, S, D), of which the first lengths[b] keys count -> (B, H, D).

    Reads the caches in place, up to the longest sequence.
    """
    B, H, D = q.shape
    G, ends = k_cache.shape[1], tuple(lengths.tolist())
    S = max(ends, default=0)
    if S == 0:
        return torch.zeros_like(q)
    scale = 1 / math.sqrt(D) if scale is None else scale
    mask = decode_mask(ends, window, q.dtype, q.device)
    if S <= NUMPY_KEYS and q.dtype == torch.float32 and q.device.type == "cpu" and not torch.is_grad_enabled():
        arrays = q.detach().numpy(), k_cache.detach().numpy(), v_cache.detach().numpy()
        y = _decode_by_numpy(*arrays, S, mask, scale)
        return y if min(ends) else y.masked_fill_((lengths == 0)[:, None, None], 0.0)
    k3, v3 = k_cache.flatten(0, 1)[:, :S], v_cache.flatten(0, 1)[:, :S]
    scores = torch.bmm((q * scale).reshape(B * G, H // G, D), k3.transpose(1, 2))
    if mask is not None:
        scores.view(B, G, -1, S).add_(mask)
    y = torch.bmm(scores.softmax(-1), v3).view(B, H, D)
    return y if min(ends) else y.masked_fill((lengths == 0)[:, None, None], 0.0)


def _decode_by_numpy(q_BHD: Array, k_cache: Array, v_cache: Array, S: int, mask: Tensor | None, scale: float) -> Tensor:
    B, H, D = q_BHD.shape
    G = k_cache.shape[1]
    q_BGnD = (q_BHD * np.float32(scale)).reshape(B, G, H // G, D)
    scores_BGnS = np.matmul(q_BGnD, k_cache[:, :, :S].swapaxes(2, 3))
    if mask is not None:
        scores_BGnS += mask.numpy()
    weights_BGnS = torch.from_numpy(scores_BGnS).softmax(-1).numpy()
    return torch.from_numpy(np.matmul(weights_BGnS, v_cache[:, :, :S])).view(B, H, D)


@lru_cache(maxsize=4)
def decode_mask(ends: tuple[int, ...], window: int | None, dtype: torch.dtype, device: torch.device) -> Tensor | None:
    """(B, 1, 1, longest): 0 where a key counts, -inf elsewhere; None when all count.

    Kept, because every layer of a step asks for the same.
    """
    S = max(ends)
    if min(ends) == S and (window is None or window >= S):
        return None
    # A tensor made under inference_mode could not be used in a later training step.
    with torch.inference_mode(False):
        key, lengths_B1 = torch.arange(S, device=device), torch.tensor(ends, device=device)[:, None]
        visible_BS = key < lengths_B1
        if window is not None:
            visible_BS &= key >= lengths_B1 - window
        mask_BS = torch.zeros(visible_BS.shape, dtype=dtype, device=device).masked_fill_(~visible_BS, float("-inf"))
        return mask_BS[:, None, None]
