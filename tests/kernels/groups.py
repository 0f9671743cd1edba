"""The groups of cases that every Triton kernel must get right: measured in the interpreter or on a GPU, and judged.

Needs no more than torch, triton and numpy.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.kernels.outcome import RESULTS, WORSE, Outcome, complaints, drift

ROOT = Path(__file__).parent.parent.parent

GROUPS = {
    "triton_cases": {"lengths": 24, "cross": 24, "windows": 24, "heads": 44, "edges": 45, "packed": 38},
    "loss_cases": {"sizes": 36, "edges": 33},
    "elementwise_cases": {"swiglu": 27, "rotary": 30},
}
"""By module: its groups, and how many cases each has in the interpreter."""
NAMES = {"triton_cases": RESULTS, "loss_cases": ("loss", "dh", "dW"), "elementwise_cases": ("out", "dx")}
"""What a module's errors are of."""


class GroupFailed(Exception):
    """The process that measured a group came to grief; the message is the end of what it said."""


def measure(group: str, module: str = "triton_cases", on_card: bool = False) -> list[Outcome]:
    """Run a group in a process of its own, in the interpreter or on the GPU.

    The interpreter must be chosen before the kernels are read; and a kernel that reads where it must not spoils its
    process for good. Raises GroupFailed where the process does not come to its end.
    """
    command = [sys.executable, "-W", "ignore", "-m", f"tests.kernels.{module}", group]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "WORKBENCH_ATTENTION": ""}
    environment["TRITON_INTERPRET"] = "0" if on_card else "1"
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=3600)
    except subprocess.TimeoutExpired as error:
        raise GroupFailed("it was not done after an hour") from error
    if done.returncode:
        raise GroupFailed(done.stderr[-3000:] or f"it ended with code {done.returncode}")
    return [Outcome(**json.loads(line)) for line in done.stdout.splitlines()]


def wrong(outcomes: Iterable[Outcome], module: str = "triton_cases") -> dict[str, list[str]]:
    """What is wrong, by case; and over all half-precision cases together, where each result must be as exact as
    PyTorch's. The loss is held to that case by case alone."""
    outcomes = list(outcomes)
    found = {outcome.case: faults for outcome in outcomes if (faults := complaints(outcome, NAMES[module]))}
    together = {} if module == "loss_cases" else drift(outcomes)
    for result, ratio in together.items():
        if not ratio <= WORSE:
            name = NAMES[module][RESULTS.index(result)]
            found[f"{name} over all"] = [f"{ratio:.2f} times PyTorch's error by geometric mean"]
    return found
