"""The command that tries every case on a GPU says what it found, a line a group, and fails where a case does."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from tests.kernels.groups import GROUPS, ROOT, GroupFailed
from tests.kernels.on_the_card import NO_GPU, verdict
from tests.kernels.outcome import Outcome

CASES = [Outcome(f"case {i}", half, [1e-7], [1e-7]) for i in range(27) for half in (True, False)]


def command(*arguments: str, interpret: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-W", "ignore", "-m", "tests.kernels.on_the_card", *arguments]
    environment = os.environ | {"TRITON_INTERPRET": interpret}
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)


def test_a_group_is_tried_in_the_interpreter_where_that_is_asked_for() -> None:
    done = command("rotary", interpret="1")
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    place, line = done.stdout.splitlines()
    assert place == "the interpreter"
    assert line.startswith(f"elementwise rotary: {GROUPS['elementwise_cases']['rotary']} cases, 0 wrong")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_fails() -> None:
    done = command(interpret="0")
    assert (done.returncode, done.stdout.strip()) == (1, NO_GPU)


def test_a_wrong_case_is_named_and_fails_the_group() -> None:
    assert verdict("elementwise_cases", "swiglu", lambda: CASES)[0]
    passed, line = verdict("elementwise_cases", "swiglu", lambda: [*CASES, Outcome("a bad one", False, [1e-3], [1e-7])])
    assert not passed
    assert "1 wrong" in line
    assert "a bad one: out is off by 1.00e-03" in line


def test_a_group_that_breaks_or_stops_early_fails() -> None:
    def broken() -> list[Outcome]:
        raise GroupFailed("Traceback\n  somewhere\nRuntimeError: an illegal memory access\n")

    assert verdict("loss_cases", "edges", broken) == (
        False,
        "loss edges: FAILED: RuntimeError: an illegal memory access",
    )
    passed, line = verdict("loss_cases", "edges", lambda: CASES[:5])
    assert not passed
    assert "5 of 33 cases" in line
