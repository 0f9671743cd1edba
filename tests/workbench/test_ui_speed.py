"""The app stays quick while runs log: held at three times the figures that `python -m benchmarks.ui` prints."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.ui import (
    ATTACH,
    FIRST_PAINT,
    FRAME,
    KEY,
    TICK_BYTES,
    attach,
    bytes_per_tick,
    first_paint,
    key_to_paint,
    overlay_frame,
    percentile,
    plot_frame,
)
from stages.store.workspace import installation_root

SLACK = 3


def fresh(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


def best(measure: Callable[[int], float], goal: float) -> float:
    """The best of up to five times, none more once one keeps the goal: other work on the machine takes its part."""
    seconds = math.inf
    for turn in range(5):
        seconds = min(seconds, measure(turn))
        if seconds <= goal:
            break
    return seconds


def test_the_first_paint_comes_quickly_with_200_runs(tmp_path: Path) -> None:
    goal = SLACK * FIRST_PAINT
    assert best(lambda turn: first_paint(fresh(tmp_path, str(turn)), rounds=1, count=200), goal) <= goal


def test_attaching_to_a_hundred_thousand_rows_is_quick(tmp_path: Path) -> None:
    assert attach(tmp_path, rounds=5) <= SLACK * ATTACH


def test_a_frame_of_a_million_points_is_quick() -> None:
    assert plot_frame() <= SLACK * FRAME


def test_a_frame_of_eight_runs_is_quick(tmp_path: Path) -> None:
    assert overlay_frame(tmp_path) <= SLACK * FRAME


def test_a_metric_tick_sends_few_bytes_to_the_terminal(tmp_path: Path) -> None:
    counts = bytes_per_tick(tmp_path, ticks=14)
    assert max(counts) <= TICK_BYTES
    assert min(counts) > 0


def test_keys_are_answered_while_eight_runs_log(tmp_path: Path) -> None:
    goal = SLACK * KEY
    assert best(lambda turn: percentile(key_to_paint(fresh(tmp_path, str(turn)), presses=60), 0.99), goal) <= goal


def test_the_app_paints_often_enough_that_no_key_waits_for_the_paint_before() -> None:
    code = (
        "from workbench import __main__ as entry\n"
        "entry.on_terminal, entry.show = lambda: True, lambda app: 0\n"
        "entry.open_app()\n"
        "from textual import constants\n"
        "print(constants.MAX_FPS)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TEXTUAL_FPS"}
    environment["PYTHONPATH"] = str(installation_root())
    shown = subprocess.run([sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True)
    assert shown.stdout == "120\n", shown.stderr
