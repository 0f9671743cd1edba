"""The Triton kernels in Triton's interpreter, on the CPU, against the reference in float64.

Each test runs one group of `tests.kernels.triton_cases` in a process of its own, for the interpreter must be chosen
before the kernels are read, and such a process cannot compile. A failure names the case and its figures.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.kernels.outcome import Outcome

ROOT = Path(__file__).parent.parent.parent
SINGLE = 2e-6
"""What fp32 may be off, relative to the truth's norm; more only where SDPA is off by more."""
WORSE = 1.05
"""How many times SDPA's error ours may be in half precision."""
RESULTS = ("out", "dq", "dk", "dv")


def measure(group: str, module: str = "triton_cases") -> list[Outcome]:
    """Run a group in the interpreter."""
    command = [sys.executable, "-W", "ignore", "-m", f"tests.kernels.{module}", group]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "WORKBENCH_ATTENTION": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return [Outcome(**json.loads(line)) for line in done.stdout.splitlines()]


def complaints(outcome: Outcome, names: Sequence[str] = RESULTS) -> list[str]:
    """What is wrong with one case.

    In half precision the two roundings differ by chance, so SDPA's error bounds ours over a case's results together,
    and each alone with some room; `drift` holds each result to the bound over all cases of a group.
    """
    found = list(outcome.faults)
    for name, ours, theirs in zip(names, outcome.ours, outcome.theirs, strict=False):
        limit = 1.3 * theirs + SINGLE if outcome.half else max(SINGLE, theirs)
        if not ours <= limit:
            found.append(f"{name} is off by {ours:.2e}, SDPA's by {theirs:.2e}")
    ours, theirs = math.hypot(*outcome.ours), math.hypot(*outcome.theirs)
    if outcome.half and not ours <= WORSE * theirs + SINGLE:
        found.append(f"off by {ours:.2e} in all, SDPA's by {theirs:.2e}")
    return found


def drift(outcomes: list[Outcome]) -> dict[str, float]:
    """For each result the geometric mean over the half-precision cases of our error over SDPA's."""
    ratios: dict[str, list[float]] = {}
    for outcome in outcomes:
        for name, ours, theirs in zip(RESULTS, outcome.ours, outcome.theirs, strict=False):
            if outcome.half and ours > SINGLE and theirs > SINGLE:
                ratios.setdefault(name, []).append(ours / theirs)
    return {name: math.exp(sum(map(math.log, found)) / len(found)) for name, found in ratios.items()}


GROUPS = {"lengths": 36, "cross": 36, "windows": 36, "heads": 44, "edges": 42, "packed": 47}


@pytest.mark.parametrize("group", GROUPS)
def test_the_kernels_are_as_exact_as_pytorch(group: str) -> None:
    outcomes = measure(group)
    assert len(outcomes) == GROUPS[group]
    assert {outcome.case: found for outcome in outcomes if (found := complaints(outcome))} == {}
    assert {name: ratio for name, ratio in drift(outcomes).items() if ratio > WORSE} == {}


def test_random_calls_are_as_exact_as_pytorch() -> None:
    outcomes = measure("random-1-12")
    assert {outcome.case: outcome.faults for outcome in outcomes if outcome.faults} == {}
    singles = [outcome for outcome in outcomes if not outcome.half]
    assert {outcome.case: found for outcome in singles if (found := complaints(outcome))} == {}


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10, 20))
def test_many_random_calls_are_as_exact_as_pytorch(seed: int) -> None:
    outcomes = measure(f"random-{seed}-60")
    assert {outcome.case: found for outcome in outcomes if (found := complaints(outcome))} == {}
