"""The door to the loss of a language model: cross-entropy over the vocabulary, without ever holding all logits.

Shapes: N tokens, C width, V vocabulary.

    logits = h Wᵀ,   lse = log Σ_v exp(logits_v),   loss = lse - logits_target + z · lse²

z · lse² keeps the logits from drifting (Chowdhery et al. 2022, PaLM, arXiv 2204.02311, section 5, with z = 1e-4).

Held whole, the logits of GPT-2's vocabulary take 201 KB a token in fp32, and their gradient as much again. Backends:

    whole      PyTorch on all logits: for so few that they cost nothing
    chunked    some rows of logits at a time, whose gradients are taken at once        (`kernels.chunked_cross_entropy`)
    triton     tiles of logits that never leave the chip                               (`kernels.triton_cross_entropy`)

The environment variable WORKBENCH_CROSS_ENTROPY names one to use wherever it can serve. It is read when a kind of call
is first met.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from kernels import chunked_cross_entropy
from kernels.choice import (
    INTERPRETED,
    NO_GPU,
    PASSED,
    Served,
    by_environment,
    failure,
    guarded,
    not_triton,
    record,
    unfit,
)

NAME = "linear_cross_entropy"
VARIABLE = "WORKBENCH_CROSS_ENTROPY"
BACKENDS = ("whole", "chunked", "triton")
FEW = 2**18
"""Up to this many logits are held whole on a CPU. Beyond it chunks are as fast or faster: forward and backward of
2,048 tokens take, in ms, whole and chunked, 17.9 and 11.9-15.1 at V 512, 270 and 232-245 at V 4,096 in fp32, 6.9 and
6.1, 175 and 116-128 in bf16 (one thread of Zen 4, C 128 and 384)."""

Reduction = Literal["mean", "sum", "none"]
Kind = tuple[torch.device, torch.dtype, bool, str]
"""What the choice depends on: device, dtype, whether the logits are few, why Triton cannot serve (or nothing)."""

_chosen: dict[Kind, str] = {}


def linear_cross_entropy(
    h_NC: Tensor,
    weight_VC: Tensor,
    targets_N: Tensor,
    *,
    ignored: int = -100,
    z_loss: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """-log softmax(h Wᵀ)[target] + z_loss · lse² in nats, in fp32 (float64 for such inputs).

    h (N, C) and weight (V, C) of one dtype; targets (N,) int64, each below V or `ignored`. reduction: the mean over
    targets that are not ignored, their sum, or all N losses with 0 where ignored, whose negative is the target's
    log-probability. Where every target is ignored the loss is 0 with gradients of 0. It can be differentiated once.
    Raises ValueError on shapes, dtypes and reductions that do not fit.
    """
    _check(h_NC, weight_VC, targets_N, reduction)
    obstacle = _obstacle(h_NC, weight_VC)
    name = _backend((h_NC.device, h_NC.dtype, len(h_NC) * len(weight_VC) <= FEW, obstacle))
    inputs = (h_NC, weight_VC, targets_N, ignored, z_loss, reduction)
    if name == "triton":
        served = Served(NAME, h_NC.device, h_NC.dtype, h_NC.shape[1])
        return guarded(served, lambda: _fused(*inputs, served), lambda: chunked_cross_entropy.loss(*inputs))
    return _whole(*inputs) if name == "whole" else chunked_cross_entropy.loss(*inputs)


def decide_usual_calls(where: torch.device) -> None:
    """Have the report name the backends of the usual calls on this device."""
    for dtype in (torch.float32, torch.bfloat16):
        for few in (True, False):
            _backend((where, dtype, few, _obstacle_on(where, dtype)))


def _check(h_NC: Tensor, weight_VC: Tensor, targets_N: Tensor, reduction: str) -> None:
    shapes = f"h {tuple(h_NC.shape)}, weight {tuple(weight_VC.shape)} and targets {tuple(targets_N.shape)}"
    if not (h_NC.ndim == weight_VC.ndim == 2 and h_NC.shape[1] == weight_VC.shape[1]):
        raise ValueError(f"{shapes} do not fit: h must be (N, C) and weight (V, C)")
    if targets_N.shape != h_NC.shape[:1] or targets_N.is_floating_point():
        raise ValueError(f"{shapes} do not fit: there must be one whole number for each row of h")
    if h_NC.dtype != weight_VC.dtype:
        raise ValueError(f"h is {h_NC.dtype} and weight {weight_VC.dtype}, but they must be of one dtype")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be mean, sum or none, not {reduction}")


def _whole(
    h_NC: Tensor, weight_VC: Tensor, targets_N: Tensor, ignored: int, z_loss: float, reduction: Reduction
) -> Tensor:
    logits_NV = functional.linear(h_NC, weight_VC)
    logits_NV = logits_NV if logits_NV.dtype == torch.float64 else logits_NV.float()
    how = "none" if reduction == "none" else "sum"
    loss = functional.cross_entropy(logits_NV, targets_N, ignore_index=ignored, reduction=how)
    if z_loss:
        squares_N = (z_loss * logits_NV.logsumexp(-1) ** 2).where(targets_N != ignored, 0.0)
        loss = loss + (squares_N if how == "none" else squares_N.sum())
    return _mean(loss, targets_N, ignored) if reduction == "mean" else loss


def _fused(
    h_NC: Tensor,
    weight_VC: Tensor,
    targets_N: Tensor,
    ignored: int,
    z_loss: float,
    reduction: Reduction,
    guard: Served,
) -> Tensor:
    losses: Callable[..., Tensor] = import_module("kernels.triton_cross_entropy").losses
    losses_N = losses(h_NC, weight_VC, targets_N, ignored, z_loss, guard)
    if reduction == "none":
        return losses_N
    return _mean(losses_N.sum(), targets_N, ignored) if reduction == "mean" else losses_N.sum()


def _mean(total: Tensor, targets_N: Tensor, ignored: int) -> Tensor:
    return total / (targets_N != ignored).sum().clamp(min=1)


def _backend(kind: Kind) -> str:
    return _chosen.get(kind) or _choose(kind)


def _choose(kind: Kind) -> str:
    device, dtype, few, obstacle = kind
    name, why = _measured(device, few, obstacle)
    why = not_triton("The loss", VARIABLE, device, why, obstacle)
    name, why = by_environment(VARIABLE, name, why, lambda asked: unfit(asked, BACKENDS, obstacle))
    record(f"{NAME}, {'up to' if few else 'over'} {FEW:,} logits", device, dtype, name, why)
    return _chosen.setdefault(kind, name)


def _measured(device: torch.device, few: bool, obstacle: str) -> tuple[str, str]:
    """The backend that measurements favour, and why."""
    if device.type == "cuda" and not obstacle:
        return "triton", PASSED
    if few:
        return "whole", "all logits at once are few enough"
    return "chunked", "never holds all logits, and takes gradients while they are at hand"


def _obstacle(h_NC: Tensor, weight_VC: Tensor) -> str:
    """Why the Triton kernels cannot take a call; empty when they can."""
    if h_NC.device.type != "cuda" and not INTERPRETED:
        return NO_GPU
    return _obstacle_on(h_NC.device, h_NC.dtype) or failure(Served(NAME, h_NC.device, h_NC.dtype, h_NC.shape[1]))


@cache
def _obstacle_on(device: torch.device, dtype: torch.dtype) -> str:
    """The same for what a call's sizes cannot change: the machine and the dtype."""
    if device.type != "cuda" and not INTERPRETED:
        return NO_GPU
    try:
        backend = import_module("kernels.triton_cross_entropy")
    except ImportError as error:
        return f"Triton cannot be imported ({error})"
    reason = backend.refusal(device, dtype)
    if reason or device.type != "cuda":
        return reason
    if os.environ.get(VARIABLE, "triton") not in ("", "triton"):
        return f"{VARIABLE} names another"
    return import_module("kernels.selftest").verdict(device, dtype, 0, NAME)
