"""The loss of logits that are at hand. Where it alone is wanted, `kernels.linear_cross_entropy` never makes them."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

IGNORED = -100


def cross_entropy(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Mean of -log softmax(logits)[target] in nats over targets other than -100, computed in fp32; a scalar.

    It is 0 with gradients of 0, not NaN, when every target is ignored.
    """
    loss = functional.cross_entropy(logits_NV.float(), targets_N, ignore_index=IGNORED, reduction="sum")
    return loss / (targets_N != IGNORED).sum().clamp(min=1)
