"""The Triton kernels in Triton's interpreter, on the CPU, against the reference in float64.

Each test runs one group of `tests.kernels.triton_cases` in a process of its own, for the interpreter must be chosen
before the kernels are read, and such a process cannot compile. A failure names the case and its figures.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.kernels.outcome import WORSE, Outcome, complaints, drift

ROOT = Path(__file__).parent.parent.parent


def measure(group: str, module: str = "triton_cases") -> list[Outcome]:
    """Run a group in the interpreter."""
    command = [sys.executable, "-W", "ignore", "-m", f"tests.kernels.{module}", group]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "WORKBENCH_ATTENTION": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return [Outcome(**json.loads(line)) for line in done.stdout.splitlines()]


GROUPS = {"lengths": 24, "cross": 24, "windows": 24, "heads": 44, "edges": 45, "packed": 38}


@pytest.mark.parametrize("group", GROUPS)
def test_the_kernels_are_as_exact_as_pytorch(group: str) -> None:
    outcomes = measure(group)
    assert len(outcomes) == GROUPS[group]
    assert {outcome.case: found for outcome in outcomes if (found := complaints(outcome))} == {}
    assert {name: ratio for name, ratio in drift(outcomes).items() if ratio > WORSE} == {}


def search(*arguments: int) -> dict[str, Any]:
    """Have hypothesis look for wrong calls; fails with the smallest that it found."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.kernels.triton_search", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "WORKBENCH_ATTENTION": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_hypothesis_finds_no_call_that_is_wrong() -> None:
    assert search(15)["tried"] >= 15


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(5))
def test_hypothesis_finds_no_call_that_is_wrong_among_many(seed: int) -> None:
    found = search(120, seed)
    assert found["tried"] >= 120
    assert {name: ratio for name, ratio in found["drift"].items() if ratio > WORSE} == {}
