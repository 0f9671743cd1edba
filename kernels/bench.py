"""How fast the fused kernels are on this card, against what PyTorch offers, in half an hour or less.

    python -m kernels.bench [--minutes 30] [--json FILE]

Phases, each with its share of the time, after which it begins no further case and says what it left out: ceilings
(matrix product, copy), correctness (the self-test), the grid of widths and lengths forward and backward, packed
documents, decoding, linear + cross-entropy, SwiGLU and rotary positions, training. Contenders take turns in one
process, three rounds, because clocks drift; a cell whose rounds differ by more than 3 % is run again while there is
time. Work is counted as 4·B·H·T²·D operations forward, half of it when causal, and 2.5 times as much backward (Dao
2023); as 6·N·V·C for linear + cross-entropy, whatever is computed again; as the bytes that one kernel each way reads
and writes for SwiGLU and rotary positions. Training is that of a GPT written here (`kernels.bench_model`), with our
kernels, in plain PyTorch and compiled, on the same data, and the loss that each arrives at is shown.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from kernels.bench_contenders import backward, both_ways, contenders, forward
from kernels.bench_model import CONTENDERS, SHAPES, TINY, Shape, train

ROUNDS = 3
SPREAD = 0.03
L2_BYTES = 60e6
"""Inputs smaller than this are used in turns of several sets, or they would be read from the cache."""
SHARES = {
    "ceilings": 0.03, "correctness": 0.12, "grid": 0.5, "packed": 0.05, "decode": 0.04, "loss": 0.04,
    "elementwise": 0.02, "training": 0.2,
}  # fmt: skip
"""Of the time, by phase."""


class Sizes(NamedTuple):
    """What is measured: all of it on a GPU, next to nothing in a smoke test."""

    widths: tuple[int, ...] = (64, 128)
    lengths: tuple[int, ...] = (512, 1024, 2048, 4096, 8192, 16384)
    tokens: int = 16384
    heads_width: int = 2048
    matrix: int = 8192
    cache: int = 8192
    vocabulary: int = 50257
    loss_widths: tuple[int, ...] = (768, 2048)
    models: tuple[Shape, ...] = SHAPES
    steps: tuple[int, int] = (10, 30)
    """Steps of training before the clock runs, and under it."""


SMOKE = Sizes((32,), (32,), 32, 64, 64, 64, 100, (32,), (TINY,), (1, 1))


@dataclass
class Row:
    """One contender in one case: milliseconds of each round, and the rate in `unit`."""

    phase: str
    case: str
    contender: str
    rate: float
    unit: str
    milliseconds: list[float] = field(default_factory=list)
    clock: str = ""


class Bench:
    """Runs the phases and keeps their rows."""

    def __init__(self, device: torch.device, sizes: Sizes, minutes: float) -> None:
        self.device, self.sizes, self.minutes = device, sizes, minutes
        self.rows: list[Row] = []
        self.remarks: list[str] = []
        self.dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.contenders = dict(contenders(device))
        self.deadline = math.inf
        self.left_out: list[str] = []

    def run(self) -> None:
        end = time.monotonic() + 60 * self.minutes
        for phase, share in SHARES.items():
            self.left_out = []
            self.deadline = min(time.monotonic() + 60 * self.minutes * share, end)
            getattr(self, phase)()
            if self.left_out:
                count, which = len(self.left_out), ", ".join(self.left_out[:3])
                more = f" and {count - 3} more" if count > 3 else ""
                self.remarks.append(f"{phase}: left out for lack of time: {which}{more}")

    def _over(self, what: str) -> bool:
        """Whether this phase's time is over, and `what` therefore left out."""
        over = time.monotonic() >= self.deadline
        if over:
            self.left_out.append(what)
        return over

    def ceilings(self) -> None:
        """What the device reaches in a matrix product and a copy, which the kernels are held against."""
        n = self.sizes.matrix
        a, b = (self._draw(n, n) for _ in range(2))
        self._cell("ceilings", f"product of {n} x {n}", {"torch": lambda: a @ b}, 2 * n**3)
        moved = 2 * a.numel() * a.element_size()
        self._cell("ceilings", f"copy of {n} x {n}", {"torch": lambda: a.clone()}, moved, "TB/s")

    def correctness(self) -> None:
        """The self-test's errors."""
        from kernels import selftest

        smoke = (("float32", 0, "swiglu"),)  # the cheapest to interpret
        for usual in selftest.USUAL if self.device.type == "cuda" else smoke:
            if self._over(" ".join(map(str, usual))):
                continue
            found = selftest.try_now(self.device, *usual)
            self.rows.append(Row("correctness", found.name, "triton", found.error, "relative error"))
            if found.sentence:
                self.remarks.append(found.sentence)

    def grid(self) -> None:
        """Attention forward and backward, by head width and length."""
        for width, T, causal in product(self.sizes.widths, self.sizes.lengths, (False, True)):
            shape = (max(1, self.sizes.tokens // T), self.sizes.heads_width // width, T, width)
            work = 4 * shape[0] * shape[1] * T * T * width * (0.5 if causal else 1.0)
            case = f"D {width} T {T} {'causal' if causal else 'full'}"
            if self._over(case):
                continue
            sets = self._sets(shape)
            there = {name: forward(f, sets, causal) for name, f in self.contenders.items()}
            self._cell("grid", f"{case} forward", there, work)
            back = {name: backward(f, sets, causal) for name, f in self.contenders.items()}
            self._cell("grid", f"{case} backward", back, 2.5 * work)

    def packed(self) -> None:
        """Attention within documents laid end to end."""
        from kernels import triton_backend

        N, width = self.sizes.tokens, self.sizes.widths[0]
        q, k, v = (self._draw(N, self.sizes.heads_width // width, width) for _ in range(3))
        for pieces in (4, 64):
            bounds = torch.linspace(0, N, pieces + 1).int().to(self.device)
            work = 2 * N * (N / pieces) * self.sizes.heads_width
            run = {"triton": lambda ends=bounds: triton_backend.attention_packed(q, k, v, ends, causal=True)}
            self._cell("packed", f"{pieces} documents, D {width}", run, work)

    def decode(self) -> None:
        """Attention of one new token over a long cache."""
        from kernels import plain, triton_backend

        width, S = self.sizes.widths[-1], self.sizes.cache
        for B in (1, 8, 64) if self.device.type == "cuda" else (1,):
            q = self._draw(B, 32, width)
            k, v = self._draw(B, 8, S, width), self._draw(B, 8, S, width)
            lengths = torch.full((B,), S, device=self.device)
            run = {"triton": lambda a=(q, k, v, lengths): triton_backend.attention_decode(*a)}
            run["plain"] = lambda a=(q, k, v, lengths): plain.attention_decode(*a)
            self._cell("decode", f"B {B} S {S} D {width}", run, 2 * k.numel() * k.element_size(), "TB/s")

    def loss(self) -> None:
        """The linear layer with cross-entropy, both ways, and its memory."""
        from kernels import chunked_cross_entropy, triton_cross_entropy

        N, V = self.sizes.tokens, self.sizes.vocabulary
        targets = torch.randint(0, V, (N,), device=self.device)
        losses = {
            "triton": lambda h, w: triton_cross_entropy.losses(h, w, targets, -100, 0.0).mean(),
            "chunked": lambda h, w: chunked_cross_entropy.loss(h, w, targets, -100, 0.0, "mean"),
            "torch": lambda h, w: functional.cross_entropy(functional.linear(h, w).float(), targets),
        }
        for C in self.sizes.loss_widths:
            leaves = [self._draw(N, C).requires_grad_(), (self._draw(V, C) / C**0.5).requires_grad_()]
            case = f"N {N} V {V} C {C} both ways"
            run = {name: lambda f=f, x=leaves: torch.autograd.grad(f(*x), x) for name, f in losses.items()}
            measured = self._cell("loss", case, run, 6 * N * V * C)
            for name, function in run.items() if measured and self.device.type == "cuda" else ():
                self.rows.append(Row("loss", f"{case}, memory", name, peak(function, self.device), "GB"))

    def elementwise(self) -> None:
        """SwiGLU and rotary positions, both ways."""
        from kernels import elementwise, triton_elementwise

        N, width = self.sizes.tokens, self.sizes.heads_width
        x = self._draw(N, 2 * width).requires_grad_()
        heads = self._draw(1, N, width // self.sizes.widths[0], self.sizes.widths[0]).requires_grad_()
        cos, sin = (self._draw(N, 1, self.sizes.widths[0]) for _ in range(2))
        calls: dict[str, tuple[Tensor, int, dict[str, Callable[[Tensor], Tensor]]]] = {
            "SwiGLU": (x, 8, {"triton": triton_elementwise.swiglu, "torch": elementwise._swiglu}),
            "rotary": (
                heads,
                4,
                {
                    "triton": lambda h: triton_elementwise.rotary(h, cos, sin),
                    "torch": lambda h: elementwise._rotary(h, cos, sin),
                },
            ),
        }
        for case, (leaf, units, functions) in calls.items():
            run = {name: both_ways(function, leaf) for name, function in functions.items()}
            work = units * N * width * x.element_size()
            self._cell("elementwise", f"{case} N {N} width {width} both ways", run, work, "TB/s")

    def training(self) -> None:
        """Steps of whole models, with and without the kernels."""
        for shape, (name, contender) in product(self.sizes.models, CONTENDERS.items()):
            if name == "compiled" and self.device.type != "cuda":
                continue
            if self._over(f"{shape.name} as {name}"):
                continue
            try:
                found = train(shape, contender, self.device, self.dtype, self.sizes.steps, self.deadline)
            except Exception as error:  # noqa: BLE001 - a contender that cannot is left out, whatever it raises
                self.remarks.append(f"{name} did not train {shape.name}: {str(error).splitlines()[0][:120]}")
                continue
            case, note = f"training {shape.name}", clock(self.device)
            self.rows.append(Row("training", case, name, found.tokens_per_s, "tokens/s", found.milliseconds, note))
            self.rows.append(Row("training", f"{case}, loss after {found.steps}", name, found.loss, "nats"))
            self.remarks += found.profile

    def _draw(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=self.device, dtype=self.dtype)

    def _sets(self, shape: tuple[int, ...]) -> list[list[Tensor]]:
        size = 3 * math.prod(shape) * self.dtype.itemsize
        count = max(1, min(4, math.ceil(L2_BYTES / size))) if self.device.type == "cuda" else 1
        return [[self._draw(*shape).requires_grad_() for _ in range(3)] for _ in range(count)]

    def _cell(
        self, phase: str, case: str, run: Mapping[str, Callable[[], Any]], work: float, unit: str = "TFLOP/s"
    ) -> bool:
        """Measure one case, if the phase has time left; whether it had."""
        if self._over(case):
            return False
        usable = {name: function for name, function in run.items() if self._works(name, case, function)}
        times = self._rounds(usable)
        if any(max(t) > (1 + SPREAD) * min(t) for t in times.values()) and time.monotonic() < self.deadline:
            times = self._rounds(usable)
        for name, found in times.items():
            self._note(phase, case, name, found, work, unit)
        return True

    def _works(self, name: str, case: str, function: Callable[[], Any]) -> bool:
        try:
            function()
        except Exception as error:  # noqa: BLE001 - a contender that cannot is left out, whatever it raises
            self.remarks.append(f"{name} left out of {case}: {str(error).splitlines()[0][:120]}")
            return False
        return True

    def _rounds(self, run: Mapping[str, Callable[[], Any]]) -> dict[str, list[float]]:
        times: dict[str, list[float]] = {name: [] for name in run}
        for number in range(ROUNDS if self.device.type == "cuda" else 1):
            if number and time.monotonic() >= self.deadline:
                break
            for name, function in run.items():
                times[name].append(milliseconds(function, self.device))
        return times

    def _note(self, phase: str, case: str, name: str, times: list[float], work: float, unit: str) -> None:
        rate = work / (statistics.median(times) * 1e-3) / 1e12
        self.rows.append(Row(phase, case, name, rate, unit, times, clock(self.device)))


def milliseconds(function: Callable[[], Any], device: torch.device) -> float:
    """The median time of one call."""
    if device.type == "cuda":
        from triton.testing import do_bench

        return float(do_bench(function, warmup=10, rep=60, return_mode="median"))
    start = time.perf_counter()
    function()
    return (time.perf_counter() - start) * 1e3


def peak(function: Callable[[], Any], device: torch.device) -> float:
    """GB that one call takes beyond what is held before it."""
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    held = torch.cuda.memory_allocated(device)
    function()
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - held) / 1e9


def clock(device: torch.device) -> str:
    """The card's clock at this moment, such as "1755 MHz"; empty where nobody can say."""
    if device.type != "cuda" or not shutil.which("nvidia-smi"):
        return ""
    command = ["nvidia-smi", "--query-gpu=clocks.sm", "--format=csv,noheader", f"--id={device.index or 0}"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def table(rows: list[Row]) -> Iterator[str]:
    """All rates, a case a line, and the geometric means of ours over the others'."""
    names = list(dict.fromkeys(row.contender for row in rows))
    yield " ".join([f"{'':44}", *(f"{name:>15}" for name in names)])
    cases: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        cases.setdefault((row.phase, row.case), {})[row.contender] = row
    for (phase, case), found in cases.items():
        cells = [f"{found[name].rate:15.3g}" if name in found else f"{'':15}" for name in names]
        unit = next(iter(found.values())).unit
        yield " ".join([f"{phase + ': ' + case:44}", *cells, f" {unit}"])
    for name in names:
        for direction in ("forward", "backward"):
            ratios = [
                found["triton"].rate / found[name].rate
                for (phase, case), found in cases.items()
                if phase == "grid"
                and case.endswith(direction)
                and {"triton", name} <= found.keys()
                and name != "triton"
            ]
            if ratios:
                yield f"triton over {name}, {direction}: {statistics.geometric_mean(ratios):.2f} by geometric mean"


def main() -> int:
    """The command. Exit code 1 when there is nothing to measure."""
    parser = argparse.ArgumentParser(prog="python -m kernels.bench", description="Measure attention on this card.")
    parser.add_argument("--minutes", type=float, default=30, help="time in all (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round's figures there as well")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes in Triton's interpreter: does it run at all?")
    asked = parser.parse_args()
    if asked.smoke:
        os.environ["TRITON_INTERPRET"] = "1"
    elif not torch.cuda.is_available():
        print("There is no GPU that torch can use, so there is nothing to measure. --smoke tries the programme itself.")
        return 1
    device = torch.device("cpu" if asked.smoke else "cuda")
    bench = Bench(device, SMOKE if asked.smoke else Sizes(), asked.minutes)
    bench.run()
    print("\n".join([*table(bench.rows), *bench.remarks]))
    if asked.json:
        card = "the interpreter" if asked.smoke else torch.cuda.get_device_name()
        facts = {"card": card, "torch": torch.__version__, "rows": [asdict(row) for row in bench.rows]}
        asked.json.write_text(json.dumps(facts | {"remarks": bench.remarks}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
