"""Linear + cross-entropy in PyTorch, some rows of logits at a time.

Shapes: N tokens, M of them at a time, C width, V vocabulary.

For a sum of losses the gradients are taken in the forward pass, while a chunk's logits are at hand: three products of
M x V x C rather than the four of computing the logits again. Only a factor, known later, is missing:

    dlogits = softmax(logits) (1 + 2 z · lse) - onehot(target),   dh = dlogits W,   dW = dlogitsᵀ h

When each loss has a gradient of its own, which the forward pass cannot know, the logits are computed again.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

AT_ONCE = 2**24
"""Logits that are held at once, in numbers: 32 MB in bf16 and 64 MB in fp32, of which two copies live at a time."""


def loss(h_NC: Tensor, weight_VC: Tensor, targets_N: Tensor, ignored: int, z_loss: float, reduction: str) -> Tensor:
    """The losses' mean or sum, or all (N,), in fp32. See the door, `kernels.linear_cross_entropy`."""
    places_M = torch.nonzero(targets_N != ignored)[:, 0]
    some = len(places_M) < len(targets_N)  # prompts and padding need no logits
    kept = (h_NC[places_M], weight_VC, targets_N[places_M]) if some else (h_NC, weight_VC, targets_N)
    if reduction != "none":
        return _Total.apply(*kept, z_loss, 1 / max(1, len(places_M)) if reduction == "mean" else 1.0)
    losses_M = _Each.apply(*kept, z_loss)
    return losses_M.new_zeros(len(targets_N)).index_copy(0, places_M, losses_M) if some else losses_M


class _Total(torch.autograd.Function):
    """`share` times the sum of all losses, with gradients found on the way."""

    @staticmethod
    def forward(ctx: Any, h_NC: Tensor, weight_VC: Tensor, targets_N: Tensor, z_loss: float, share: float) -> Tensor:
        # A power of two is put back at the end, which rounds nothing: 1 / N times a probability is too small for fp16.
        mantissa, exponent = math.frexp(share)
        ctx.scale = 2.0**exponent
        gradients = _Gradients(h_NC, weight_VC, *ctx.needs_input_grad[:2])
        total = torch.zeros((), dtype=_exact(h_NC), device=h_NC.device)
        for rows in gradients.chunks:
            log_p_MV, lse_M, picked_M = _log_softmax(h_NC[rows], weight_VC, targets_N[rows], z_loss)
            total += (z_loss * lse_M**2 - picked_M).sum()
            if any(ctx.needs_input_grad[:2]):
                gradients.add(rows, _of_logits(log_p_MV, lse_M, targets_N[rows], z_loss).mul_(mantissa))
        ctx.save_for_backward(*gradients.found())
        return total * share

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        return *(_times(x, upstream * ctx.scale) for x in ctx.saved_tensors), None, None, None


class _Each(torch.autograd.Function):
    """The losses one by one."""

    @staticmethod
    def forward(ctx: Any, h_NC: Tensor, weight_VC: Tensor, targets_N: Tensor, z_loss: float) -> Tensor:
        ctx.z_loss = z_loss
        ctx.save_for_backward(h_NC, weight_VC, targets_N)
        losses_N = torch.empty(len(h_NC), dtype=_exact(h_NC), device=h_NC.device)
        for rows in _chunks(h_NC, weight_VC):
            _, lse_M, picked_M = _log_softmax(h_NC[rows], weight_VC, targets_N[rows], z_loss)
            losses_N[rows] = z_loss * lse_M**2 - picked_M
        return losses_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream_N: Tensor) -> tuple[Tensor | None, ...]:
        h_NC, weight_VC, targets_N = ctx.saved_tensors
        gradients = _Gradients(h_NC, weight_VC, *ctx.needs_input_grad[:2])
        scale = _power_of_two(upstream_N)
        for rows in gradients.chunks:
            log_p_MV, lse_M, _ = _log_softmax(h_NC[rows], weight_VC, targets_N[rows], ctx.z_loss)
            dlogits_MV = _of_logits(log_p_MV, lse_M, targets_N[rows], ctx.z_loss)
            gradients.add(rows, dlogits_MV.mul_((upstream_N[rows] / scale)[:, None]))
        return *(_times(x, scale) for x in gradients.found()), None, None


class _Gradients:
    """The gradients of h and W, gathered chunk by chunk."""

    def __init__(self, h_NC: Tensor, weight_VC: Tensor, of_h: bool, of_weight: bool) -> None:
        self.chunks = _chunks(h_NC, weight_VC)
        self._h_NC, self._weight_VC = h_NC, weight_VC
        # One chunk's product is rounded once; the sum of several is kept exact until its end.
        sums = _exact(h_NC) if len(self.chunks) > 1 else h_NC.dtype
        self._dh_NC = torch.empty_like(h_NC) if of_h else None
        self._dweight_VC = torch.zeros_like(weight_VC, dtype=sums) if of_weight else None

    def add(self, rows: slice, dlogits_MV: Tensor) -> None:
        low_MV = dlogits_MV.to(self._h_NC.dtype)
        if self._dh_NC is not None:
            torch.mm(low_MV, self._weight_VC, out=self._dh_NC[rows])
        if self._dweight_VC is None:
            return
        if self._dweight_VC.dtype == low_MV.dtype:
            self._dweight_VC.addmm_(low_MV.T, self._h_NC[rows])
        else:
            self._dweight_VC += low_MV.T @ self._h_NC[rows]

    def found(self) -> tuple[Tensor | None, Tensor | None]:
        weight = self._dweight_VC
        return self._dh_NC, None if weight is None else weight.to(self._weight_VC.dtype)


def _power_of_two(upstream_N: Tensor) -> Tensor:
    """One near the largest factor, to be taken out first and put back last: in fp16 small products would be lost."""
    largest = upstream_N.abs().amax() if len(upstream_N) else upstream_N.new_ones(())
    return torch.exp2(largest.clamp(min=2.0**-100).log2().round())


def _times(x: Tensor | None, factor: Tensor) -> Tensor | None:
    """x · factor, rounded once: on a GPU a factor that is a tensor would be rounded to x's dtype first."""
    if x is None:
        return None
    return x * factor if x.device.type == "cpu" else (x.to(_exact(x)) * factor).to(x.dtype)


def _exact(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _chunks(h_NC: Tensor, weight_VC: Tensor) -> list[slice]:
    rows = max(1, AT_ONCE // max(1, len(weight_VC)))
    return [slice(start, start + rows) for start in range(0, len(h_NC), rows)]


def _log_softmax(h_MC: Tensor, weight_VC: Tensor, targets_M: Tensor, z_loss: float) -> tuple[Tensor, Tensor, Tensor]:
    """All log-probabilities of a chunk, lse (0 unless it is asked for by z_loss), the targets' log-probabilities."""
    logits_MV = functional.linear(h_MC, weight_VC).to(_exact(h_MC))
    log_p_MV = logits_MV.log_softmax(-1)
    picked_M = log_p_MV.gather(1, targets_M[:, None])[:, 0]
    lse_M = logits_MV.gather(1, targets_M[:, None])[:, 0] - picked_M if z_loss else torch.zeros_like(picked_M)
    return log_p_MV, lse_M, picked_M


def _of_logits(log_p_MV: Tensor, lse_M: Tensor, targets_M: Tensor, z_loss: float) -> Tensor:
    """The losses' gradients with respect to a chunk's logits, in the place of their log-probabilities."""
    dlogits_MV = log_p_MV.exp_()
    if z_loss:
        dlogits_MV.mul_((1 + 2 * z_loss * lse_M)[:, None])
    return dlogits_MV.scatter_add_(1, targets_M[:, None], -torch.ones_like(log_p_MV[:, :1]))
