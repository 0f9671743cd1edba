"""What a training step holds in memory, by part, and how many rows at once fit: tried before the run begins."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stages.optim import AdamW
from stages.store.errors import WorkFailed
from stages.training import distributed

SPARE = 0.9
"""Share of the memory of a CPU that is free for a process, which its activations may take."""


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


def probe(
    model: nn.Module,
    optimizer: AdamW,
    loss_of: Callable[[int], Tensor],
    rows: int,
    beside: Sequence[AdamW] = (),
) -> Parts:
    """Try the largest micro-batch once, halving it from `rows` until it fits; what it takes.

    loss_of: the loss of the costliest batch of so many rows. beside: optimisers of further models that it trains, such
    as a value model. On a GPU activations are what its allocator needed at the peak, less the gradients; on a CPU,
    where too much ends the process, they are what autograd keeps for one row, times the rows. Makes the optimisers'
    moments, leaves no gradient. Raises WorkFailed when not even one row fits.
    """
    device, optimizers = optimizer.master.device, (optimizer, *beside)
    parameters = [*model.parameters(), *(parameter for each in beside for parameter in each.parameters)]
    model.train()
    for each in optimizers:
        each.make_moments()
    gradients = sum(parameter.nbytes for each in optimizers for parameter in each.parameters)
    if device.type == "cpu":
        of_a_row = kept_by_autograd(partial(loss_of, 1), parameters)
        room = int(distributed.free_memory(device) * SPARE) - gradients
        while rows > 1 and of_a_row * rows > room:
            rows //= 2
    while True:
        activations = try_step(parameters, partial(loss_of, rows), device)
        if activations is not None:
            break
        if rows == 1:
            raise does_not_fit()
        rows //= 2
    if device.type == "cpu":
        activations = of_a_row * rows
    else:
        activations = max(0, activations - gradients)
    return Parts(**_standing(parameters, optimizers), activations=activations, rows=rows)


def try_step(parameters: Sequence[Tensor], loss: Callable[[], Tensor], device: torch.device) -> int | None:
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
    forget_gradients(parameters)
    if not fits:
        return None
    return torch.cuda.max_memory_allocated(device) - before if cuda else 0


def kept_by_autograd(loss: Callable[[], Tensor], parameters: Iterable[Tensor]) -> int:
    """Bytes that autograd keeps for the backward pass, these parameters left out, each memory counted once."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in parameters}
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


def forget_gradients(parameters: Iterable[Tensor]) -> None:
    """Drop what a step has left, and give unused memory back."""
    for parameter in parameters:
        parameter.grad = None
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _standing(parameters: Sequence[Tensor], optimizers: Sequence[AdamW]) -> dict[str, int]:
    """Bytes that are there through the whole run: AdamW keeps two moments beside the masters from its first step on."""
    weights = sum({each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in parameters}.values())
    moments = sum(2 * each.master.nbytes for each in optimizers)
    masters = sum(each.master.nbytes for each in optimizers if each.compute is not each.master)
    of_parameters = sum(parameter.nbytes for each in optimizers for parameter in each.parameters)
    return {
        "weights": weights,
        "gradients": of_parameters + sum(each.gradient.nbytes for each in optimizers),
        "optimiser": masters + moments,
    }
