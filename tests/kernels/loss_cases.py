"""The calls of linear + cross-entropy that its Triton kernels must get right, measured on the GPU where there is
one and TRITON_INTERPRET is not 1, else in the interpreter.

    python -m tests.kernels.loss_cases GROUP          one JSON line a case, as `Outcome`

Truth is the reference in float64 on the same rounded inputs. Errors are ‖ours - truth‖ / ‖truth‖ of the losses and of
the gradients of h and W; "theirs" are those of PyTorch on all logits in the same dtype.
"""

from __future__ import annotations

from tests.kernels.device import DEVICE, ON_CARD  # isort: skip  # before the kernels are decorated

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from kernels import configs, reference, triton_cross_entropy
from kernels.configs import Linear
from tests.kernels.outcome import Outcome

HALF = ("float16", "bfloat16")
DTYPES = (*HALF, "float32")
TILES = ((32, 32, 32), (16, 64, 16), (64, 16, 32), (64, 64, 64))
"""Cases take turns with these: tokens, words and columns of a tile."""


@dataclass(frozen=True)
class Case:
    """One call. Sizes as in the door's documentation."""

    dtype: str = "float32"
    N: int = 33
    V: int = 130
    C: int = 40
    ignored: tuple[int, int] = (0, 0)  # from and to which target
    z_loss: float = 0.0
    logits: float = 1.0  # how large
    layout: str = "dense"  # or every second row, columns first
    words: int = 0  # of the vocabulary at a time in the backward pass; 0: all
    tiles: tuple[int, int, int] | None = TILES[0]  # as shipped when None
    repeat: bool = False

    def __str__(self) -> str:
        changed = {key: value for key, value in asdict(self).items() if value != getattr(Case, key)}
        return " ".join(f"{key}={value}" for key, value in changed.items())


def sizes() -> Iterator[Case]:
    for N, (V, C), dtype in itertools.product((1, 31, 64, 65), ((1, 16), (63, 40), (257, 64)), DTYPES):
        yield Case(dtype, N, V, C)


def edges() -> Iterator[Case]:
    for dtype in DTYPES:
        yield Case(dtype, ignored=(3, 9))
        yield Case(dtype, N=100, ignored=(0, 70))  # whole tiles are ignored
        yield Case(dtype, ignored=(0, 33))
        yield Case(dtype, z_loss=1e-2, ignored=(0, 5))
        yield Case(dtype, logits=8.0, V=200)
        yield Case(dtype, logits=8.0, z_loss=1e-3)
        yield Case(dtype, V=300, words=64)
        yield Case(dtype, V=129, words=128, ignored=(1, 2), z_loss=1e-3)
        yield Case(dtype, layout="every second row")
        yield Case(dtype, layout="columns first", C=17)
        yield Case(dtype, N=17, V=700, C=20)  # more words than one program takes


GROUPS: dict[str, Callable[[], Iterator[Case]]] = {function.__name__: function for function in (sizes, edges)}


def cases(group: str) -> list[Case]:
    """A group's cases, each with its turn of tile sizes, every fourth run twice; on a card also those that ship."""
    turns = enumerate(GROUPS[group]())
    found = [replace(case, tiles=TILES[i % len(TILES)], repeat=i % 4 == 0) for i, case in turns]
    return [*found, *(replace(case, tiles=None) for case in found)] if ON_CARD else found


def run(case: Case) -> Outcome:
    """Measure one case."""
    configs._forced_linear.clear()
    if case.tiles:
        configs._forced_linear["linear"] = Linear(*case.tiles, 4, 1)
    h_NC, weight_VC, targets_N = inputs(case)
    triton_cross_entropy.AT_ONCE = (case.words or 10**6) * case.N * h_NC.element_size()
    outcome = Outcome(str(case), case.dtype in HALF)

    def fused(h: Tensor, weight: Tensor) -> Tensor:
        return triton_cross_entropy.losses(h, weight, targets_N, -100, case.z_loss)

    def exact(h: Tensor, weight: Tensor) -> Tensor:
        return reference.linear_cross_entropy(h, weight, targets_N, z_loss=case.z_loss)

    def plain(h: Tensor, weight: Tensor) -> Tensor:
        logits = functional.linear(h, weight).float()
        losses = functional.cross_entropy(logits, targets_N, ignore_index=-100, reduction="none")
        return losses + (case.z_loss * logits.logsumexp(-1) ** 2).where(targets_N != -100, 0.0)

    ours, theirs = results(fused, h_NC, weight_VC), results(plain, h_NC, weight_VC)
    truth = results(exact, h_NC.double(), weight_VC.double())
    if any(not torch.isfinite(x).all() for x in ours):
        outcome.faults.append("not finite")
    if ours[0].dtype != torch.float32 or ours[1].dtype != h_NC.dtype:
        outcome.faults.append("another dtype")
    if case.repeat and not all(map(torch.equal, ours, results(fused, h_NC, weight_VC))):
        outcome.faults.append("other bits the second time")
    if any((found[targets_N == -100] != 0).any() for found in ours[:2]):
        outcome.faults.append("an ignored target counts")
    outcome.ours, outcome.theirs = errors(ours, truth), errors(theirs, truth)
    return outcome


def inputs(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """h, W and targets, laid out as the case says."""
    dice = torch.Generator().manual_seed(0)
    dtype = getattr(torch, case.dtype)
    h = (torch.randn(2 * case.N, case.C, generator=dice) * case.logits / case.C**0.5).to(DEVICE, dtype)
    weight = (torch.randn(case.V, case.C, generator=dice) * 2).to(DEVICE, dtype)
    targets = torch.randint(0, case.V, (case.N,), generator=dice).to(DEVICE)
    targets[slice(*case.ignored)] = -100
    if case.layout == "columns first":
        return h[: case.N].T.contiguous().T, weight.T.contiguous().T, targets
    return (h[::2] if case.layout == "every second row" else h[: case.N]), weight, targets


def results(function: Callable[..., Tensor], h: Tensor, weight: Tensor) -> list[Tensor]:
    """The losses and the gradients of h and W under one fixed upstream gradient."""
    leaves = [x.detach().requires_grad_() for x in (h, weight)]
    losses = function(*leaves)
    upstream = torch.cos(torch.arange(len(losses))).to(losses) / len(losses)
    return [losses.detach(), *torch.autograd.grad(losses, leaves, upstream)]


def errors(found: list[Tensor], truth: list[Tensor]) -> list[float]:
    """Relative distances; gradients that should be 0, as over one word, count by the size of their summands."""
    least = (1e-3, 1e-2, 1e-2)
    return [
        ((a.double() - b).norm() / b.norm().clamp(min=floor)).item()
        for a, b, floor in zip(found, truth, least, strict=True)
    ]


def main() -> None:
    for case in cases(sys.argv[1]):
        print(json.dumps(asdict(run(case))), flush=True)


if __name__ == "__main__":
    main()
