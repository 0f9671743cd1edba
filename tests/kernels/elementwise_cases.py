"""The calls that the Triton kernels of SwiGLU and rotary positions must get right, measured on the GPU
where there is one and TRITON_INTERPRET is not 1, else in the interpreter.

    python -m tests.kernels.elementwise_cases GROUP          one JSON line a case, as `Outcome`

Truth is the reference in float64 on the same rounded inputs; "theirs" are the errors of PyTorch's operations in the
same dtype.
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

from kernels import elementwise, reference, triton_elementwise
from tests.kernels.outcome import Outcome

HALF = ("float16", "bfloat16")
DTYPES = (*HALF, "float32")
SHIPPED = triton_elementwise.BLOCK, triton_elementwise.TILE


@dataclass(frozen=True)
class Case:
    """One call: of swiglu x (N, 2F), of rotary x (B, T, H, D)."""

    call: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    layout: str = "dense"  # or part of a wider tensor, heads first, every second column
    angles: str = "by token"  # or by row of the batch
    size: float = 1.0
    block: int | None = 64  # columns of a program of swiglu, numbers of one of rotary; as shipped when None

    def __str__(self) -> str:
        fields = asdict(self).items()
        return " ".join(f"{key}={value}" for key, value in fields if value != getattr(Case, key, None))


def swiglu() -> Iterator[Case]:
    for (N, F), dtype in itertools.product(((1, 1), (3, 63), (5, 64), (2, 65), (7, 300)), DTYPES):
        yield Case("swiglu", (N, 2 * F), dtype)
    for dtype in DTYPES:
        yield Case("swiglu", (4, 100), dtype, size=30.0)  # gates beyond where exp of them overflows in fp16
        yield Case("swiglu", (4, 100), dtype, layout="part")
        yield Case("swiglu", (4, 100), dtype, layout="every second column")
        yield Case("swiglu", (0, 64), dtype)


def rotary() -> Iterator[Case]:
    for D, (H, T), dtype in itertools.product((16, 40, 96), ((1, 1), (7, 3)), DTYPES):
        yield Case("rotary", (1, T, H, D), dtype, block=256 if D > 16 else 64)
    for dtype in DTYPES:
        yield Case("rotary", (3, 4, 5, 32), dtype, angles="by row")
        for layout in ("part", "heads first", "every second column"):
            yield Case("rotary", (2, 3, 4, 64), dtype, layout=layout)


GROUPS: dict[str, Callable[[], Iterator[Case]]] = {function.__name__: function for function in (swiglu, rotary)}


def cases(group: str) -> list[Case]:
    """A group's cases. On a card also with the blocks that ship."""
    found = list(GROUPS[group]())
    return [*found, *(replace(case, block=None) for case in found)] if ON_CARD else found


def run(case: Case) -> Outcome:
    """Measure one case."""
    triton_elementwise.BLOCK, triton_elementwise.TILE = (case.block, case.block) if case.block else SHIPPED
    x, tables = inputs(case)
    outcome = Outcome(str(case), case.dtype in HALF)
    exact = [table.double() for table in tables]
    ours = results(getattr(triton_elementwise, case.call), x, tables)
    theirs = results(getattr(elementwise, f"_{case.call}"), x, tables)
    truth = results(getattr(reference, case.call), x.double(), exact)
    if any(not torch.isfinite(a).all() for a in ours):
        outcome.faults.append("not finite")
    if any(a.dtype != x.dtype or a.shape != b.shape for a, b in zip(ours, truth, strict=True)):
        outcome.faults.append("another dtype or shape")
    if not all(map(torch.equal, ours, results(getattr(triton_elementwise, case.call), x, tables))):
        outcome.faults.append("other bits the second time")
    outcome.ours, outcome.theirs = errors(ours, truth), errors(theirs, truth)
    return outcome


def inputs(case: Case) -> tuple[Tensor, list[Tensor]]:
    """x, laid out as the case says, and rotary's tables."""
    dice = torch.Generator().manual_seed(sum(case.shape))
    dtype = getattr(torch, case.dtype)

    def draw(*shape: int) -> Tensor:
        return (torch.randn(shape, generator=dice) * case.size).to(DEVICE, dtype)

    shape = list(case.shape)
    if case.layout == "part":
        x = draw(*shape[:-2], shape[-2] + 3, shape[-1])[..., : shape[-2], :]
    elif case.layout == "heads first":
        x = draw(shape[0], shape[2], shape[1], shape[3]).transpose(1, 2)
    elif case.layout == "every second column":
        x = draw(*shape[:-1], 2 * shape[-1])[..., ::2]
    else:
        x = draw(*shape)
    if case.call == "swiglu":
        return x, []
    B, T, _, D = shape
    angles = torch.randn((B, 1, 1, D // 2) if case.angles == "by row" else (T, 1, D // 2), generator=dice) * 3
    cos, sin = angles.cos(), angles.sin()
    return x, [torch.cat((cos, cos), -1).to(DEVICE, dtype), torch.cat((-sin, sin), -1).to(DEVICE, dtype)]


def results(function: Callable[..., Tensor], x: Tensor, tables: list[Tensor]) -> list[Tensor]:
    """The output and the gradient of x under one fixed upstream gradient, which is not dense."""
    leaf = x.detach().requires_grad_()
    out = function(leaf, *tables)
    upstream = torch.cos(torch.arange(2 * out.numel())).to(out).view(*out.shape[:-1], 2 * out.shape[-1])[..., ::2]
    return [out.detach(), *torch.autograd.grad(out, [leaf], upstream)]


def errors(found: list[Tensor], truth: list[Tensor]) -> list[float]:
    return [((a.double() - b).norm() / b.norm().clamp(min=1e-12)).item() for a, b in zip(found, truth, strict=True)]


def main() -> None:
    for case in cases(sys.argv[1]):
        print(json.dumps(asdict(run(case))), flush=True)


if __name__ == "__main__":
    main()
