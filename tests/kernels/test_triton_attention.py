"""The Triton kernels in Triton's interpreter, on the CPU, against the reference in float64; and so on a GPU.

Each test runs one group of `tests.kernels.triton_cases` in a process of its own, for the interpreter must be chosen
before the kernels are read, and such a process cannot compile. A failure names the case and its figures.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.kernels.groups import GROUPS, ROOT, measure, wrong
from tests.kernels.outcome import WORSE
from tests.kernels.places import PLACES

COUNTS = GROUPS["triton_cases"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("group", COUNTS)
def test_the_kernels_are_as_exact_as_pytorch(group: str, place: str) -> None:
    outcomes = measure(group, on_card=place == "gpu")
    assert (len(outcomes) == COUNTS[group]) if place == "interpreter" else (len(outcomes) >= COUNTS[group])
    assert wrong(outcomes) == {}


def search(*arguments: int, place: str = "interpreter") -> dict[str, Any]:
    """Have hypothesis look for wrong calls; fails with the smallest that it found."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.kernels.triton_search", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "WORKBENCH_ATTENTION": ""}
    environment["TRITON_INTERPRET"] = "1" if place == "interpreter" else "0"
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("place", PLACES)
def test_hypothesis_finds_no_call_that_is_wrong(place: str) -> None:
    assert search(15, place=place)["tried"] >= 15


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(5))
def test_hypothesis_finds_no_call_that_is_wrong_among_many(seed: int) -> None:
    found = search(120, seed)
    assert found["tried"] >= 120
    assert {name: ratio for name, ratio in found["drift"].items() if ratio > WORSE} == {}
