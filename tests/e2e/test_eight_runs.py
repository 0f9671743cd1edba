"""Eight runs on screen for a long time: what the app costs meanwhile, and how quickly it answers.

WORKBENCH_WATCH_SECONDS=600 python -m pytest -m bench -s tests/e2e/test_eight_runs.py
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from benchmarks.ui import (
    EIGHT,
    KEY,
    Terminal,
    app_in_terminal,
    append_rows,
    make_runs,
    open_runs,
    percentile,
    up_and_down,
    writer,
)

SECONDS = float(os.environ.get("WORKBENCH_WATCH_SECONDS", "600"))
"""How long the runs are watched."""
ROWS = 10
"""Rows that each run logs ten times a second."""
CORE = 0.15
"""Share of one core that the app may take."""
GROWTH = 4e6
"""Bytes by which the least memory of the middle third of the time and of the last may differ: noise of the allocator.

In the first what is kept of drawn rows fills up, some 10 MB in two minutes; then the collector of garbage, which looks
seldom, makes a saw of 5 MB, so the least of a stretch is what can grow.
"""


class Watched(NamedTuple):
    """What was seen: seconds from keys to paint, the share of a core, the memory in bytes from moment to moment."""

    delays: list[float]
    share: float
    memory: list[int]

    @property
    def growth(self) -> float:
        third = max(1, len(self.memory) // 3)
        return min(self.memory[-third:]) - min(self.memory[third : 2 * third])


def watch(terminal: Terminal, seconds: float) -> Watched:
    """Look at the app while it shows the runs; press a key now and then, as one who reads."""
    app, pause = psutil.Process(terminal.process.pid), random.Random(0)
    moves, delays, memory = up_and_down(terminal), [], []
    before, start = app.cpu_times(), time.perf_counter()
    while time.perf_counter() - start < seconds:
        terminal.read_for(pause.uniform(0.6, 1.4))
        delays.append(next(moves))
        memory.append(app.memory_info().rss)
        terminal.output.clear()
    after, took = app.cpu_times(), time.perf_counter() - start
    return Watched(delays, (after.user + after.system - before.user - before.system) / took, memory)


@pytest.mark.bench
def test_eight_runs_are_watched_at_little_cost(tmp_path: Path) -> None:
    workspace, runs = make_runs(tmp_path, EIGHT)
    for run in runs:
        append_rows(run, 1, 2_000)
    with writer(runs, ROWS), app_in_terminal(workspace) as terminal:
        open_runs(terminal)
        moves = up_and_down(terminal)
        for _ in EIGHT:  # all eight on the plot
            terminal.press(" ")
            terminal.read_for(0.3)
            next(moves)
        terminal.press("k" * len(EIGHT))
        terminal.read_for(5.0)
        seen = watch(terminal, SECONDS)
    p50, p99 = percentile(seen.delays, 0.5), percentile(seen.delays, 0.99)
    memory = f"memory {seen.memory[-1] / 1e6:.0f} MB, {seen.growth / 1e6:+.1f} MB"
    print(f"\n{SECONDS:,.0f} s: {seen.share:.1%} of a core, {memory}")
    print(f"{len(seen.delays):,} keys to paint: median {p50 * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms")
    assert seen.share <= CORE
    assert seen.growth <= GROWTH
    assert p99 <= KEY
