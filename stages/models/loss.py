"""The loss of logits that are at hand. Where it alone is wanted, `kernels.linear_cross_entropy` never makes them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

IGNORED = -100


def cross_entropy(logits_NV: Tensor, targets_N: Tensor, z_loss: float = 0.0) -> Tensor:
    """Mean of -log softmax(logits)[target] + z_loss · log² Σ exp(logits) in nats over targets other than -100.

    A scalar, computed in fp32 (float64 for such logits). It is 0 with gradients of 0, not NaN, when every target is
    ignored.
    """
    logits_NV = logits_NV if logits_NV.dtype == torch.float64 else logits_NV.float()
    loss = functional.cross_entropy(logits_NV, targets_N, ignore_index=IGNORED, reduction="sum")
    kept_N = targets_N != IGNORED
    if z_loss:
        loss = loss + z_loss * (logits_NV.logsumexp(-1) ** 2).where(kept_N, 0.0).sum()
    return loss / kept_N.sum().clamp(min=1)
