"""What a training step holds in memory, by part, and how many rows at once fit: tried before the run begins."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import psutil
import torch
from torch import Tensor, nn

from stages.optim import AdamW
from stages.store.errors import WorkFailed

SPARE = 0.9
"""Share of the free memory of a CPU that activations may take."""


class Parts(NamedTuple):
    """Bytes of a step at its peak, and the rows computed at once that they belong to."""

    weights: int
    gradients: int
    optimiser: int
    activations: int
    rows: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimiser + self.activations


def probe(model: nn.Module, optimizer: AdamW, loss_of: Callable[[int], Tensor], rows: int) -> Parts:
    """Try the largest micro-batch once, halving it from `rows` until it fits; what it takes.

    loss_of: the loss of the costliest batch of so many rows. On a GPU activations are what its allocator needed at the
    peak, less the gradients; on a CPU, where too much ends the process, they are what autograd keeps for one row, times
    the rows. Makes the optimiser's moments, leaves no gradient. Raises WorkFailed when not even one row fits.
    """
    device = optimizer.master.device
    model.train()
    optimizer.make_moments()
    gradients = sum(parameter.nbytes for parameter in optimizer.parameters)
    if device.type == "cpu":
        each = kept_by_autograd(partial(loss_of, 1), model)
        room = int(psutil.virtual_memory().available * SPARE) - gradients
        while rows > 1 and each * rows > room:
            rows //= 2
    while True:
        activations = try_step(model, partial(loss_of, rows), device)
        if activations is not None:
            break
        if rows == 1:
            raise does_not_fit()
        rows //= 2
    if device.type == "cpu":
        activations = each * rows
    else:
        activations = max(0, activations - gradients)
    return Parts(**_standing(model, optimizer), activations=activations, rows=rows)


def try_step(model: nn.Module, loss: Callable[[], Tensor], device: torch.device) -> int | None:
    """Try a step. The bytes needed beyond what was there, 0 on a CPU; None when it does not fit."""
    cuda = device.type == "cuda"
    before = torch.cuda.memory_allocated(device) if cuda else 0
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    fits = True
    try:
        loss().backward()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        fits = False
    forget_gradients(model)
    if not fits:
        return None
    return torch.cuda.max_memory_allocated(device) - before if cuda else 0


def kept_by_autograd(loss: Callable[[], Tensor], model: nn.Module) -> int:
    """Bytes that autograd keeps for the backward pass, weights left out, each memory counted once."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        found = loss()
    del found
    return sum(kept.values())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch has run out of memory, on a GPU or a CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def does_not_fit() -> WorkFailed:
    return WorkFailed(
        "The memory does not hold a step over a single row.",
        "Choose a shorter context, a smaller model, or activation_checkpointing where the stage has it.",
    )


def forget_gradients(model: nn.Module) -> None:
    """Drop what a step has left, and give unused memory back."""
    for parameter in model.parameters():
        parameter.grad = None
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _standing(model: nn.Module, optimizer: AdamW) -> dict[str, int]:
    """Bytes that are there through the whole run: AdamW keeps two moments beside the masters from its first step on."""
    weights = sum({p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in model.parameters()}.values())
    masters = 0 if optimizer.compute is optimizer.master else optimizer.master.nbytes
    of_parameters = sum(parameter.nbytes for parameter in optimizer.parameters)
    return {
        "weights": weights,
        "gradients": of_parameters + optimizer.gradient.nbytes,
        "optimiser": masters + 2 * optimizer.master.nbytes,
    }
