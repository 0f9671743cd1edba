"""Which keys a query sees, as boolean and as additive masks. Query i of T stands at position i + S - T among S keys."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def visible_keys(
    T: int, S: int, causal: bool, window: int | None, key_lengths: Tensor | None, device: torch.device
) -> Tensor | None:
    """True where a query sees a key, broadcastable to (B, H, T, S); None when every query sees every key.

    `window` counts keys: those at a distance below it, on both sides unless `causal`.
    """
    visible = None
    if causal or window is not None:
        distance_TS = torch.arange(S - T, S, device=device)[:, None] - torch.arange(S, device=device)
        visible = distance_TS >= 0 if causal else torch.ones_like(distance_TS, dtype=torch.bool)
        if window is not None:
            visible = visible & (distance_TS.abs() < window)
    if key_lengths is not None:
        within = (torch.arange(S, device=device) < key_lengths.to(device)[:, None])[:, None, None]
        visible = within if visible is None else visible & within
    return visible


@lru_cache(maxsize=16)
def additive_mask(
    T: int, S: int, causal: bool, window: int | None, repeats: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """(repeats · T, S): 0 where a query sees a key, -inf elsewhere. Kept, because a training loop asks every layer."""
    # A tensor made under inference_mode could not be used in a later training step.
    with torch.inference_mode(False):
        mask = torch.zeros(T, S, dtype=dtype, device=device)
        visible = visible_keys(T, S, causal, window, None, device)
        if visible is not None:
            mask.masked_fill_(~visible, float("-inf"))
        return mask.repeat(repeats, 1)
