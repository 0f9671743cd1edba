"""What the app costs to look at: first paint, attaching, frames, bytes to the terminal, and keys while runs log.

    python -m benchmarks.ui

The app runs in a real pseudo-terminal; beside it one process appends to the runs as workers do.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import pty
import random
import select
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from stages.store.rundir import RunDir, RunSpec, RunState, create_run
from stages.store.workspace import Workspace, installation_root
from workbench.board.watch import Watch
from workbench.plots.curves import Track
from workbench.plots.picture import Look, Shown, overlay
from workbench.plots.plot import Curve, frame, window
from workbench.plots.series import Series, outline
from workbench.themes import MARKERS
from workbench.widgets.loss_plot import build

FIRST_PAINT, ATTACH, FRAME, KEY = 0.300, 0.5, 0.030, 0.050
"""Seconds that the app may take: targets of the project."""
TICK_BYTES = 8 * 1024
"""Bytes that one metric tick may send to a terminal of 120×40."""

AT_REST = 100
"""Bytes in a second that a screen on which nothing changes may send."""

HOME = "Home"
"""What the first screen writes: Home in the bar of places."""


class Terminal:
    """A program in a pseudo-terminal, its output collected as it comes."""

    def __init__(
        self,
        command: list[str],
        environment: dict[str, str],
        columns: int = 120,
        rows: int = 40,
        folder: Path | None = None,
    ) -> None:
        self._master, child = pty.openpty()
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        size = {"COLUMNS": str(columns), "LINES": str(rows)}  # or those of the caller's terminal would be believed
        self.process = subprocess.Popen(
            command,
            stdin=child,
            stdout=child,
            stderr=child,
            env=environment | size,
            cwd=folder,
            start_new_session=True,
        )
        os.close(child)
        self.output = bytearray()

    def read(self, seconds: float) -> int:
        """Take what comes within `seconds`, at most one part; its length."""
        if not select.select([self._master], [], [], max(0.0, seconds))[0]:
            return 0
        try:
            part = os.read(self._master, 1 << 16)
        except OSError:
            return 0
        self.output += part
        return len(part)

    def wait_for(self, text: str, seconds: float = 60.0, start: int = 0) -> None:
        """Read until `text` has been written; TimeoutError after `seconds`."""
        deadline = time.perf_counter() + seconds
        while text.encode() not in self.output[start:]:
            if time.perf_counter() > deadline or self.process.poll() is not None:
                raise TimeoutError(f"no {text!r} within {seconds} s: {bytes(self.output[-2000:])!r}")
            self.read(0.05)

    def read_for(self, seconds: float) -> int:
        """Take all that comes in the next `seconds`; its length."""
        before, deadline = len(self.output), time.perf_counter() + seconds
        while (left := deadline - time.perf_counter()) > 0:
            self.read(left)
        return len(self.output) - before

    def wait_for_rest(self, seconds: float = 60.0) -> None:
        """Read until no more than moves of the cursor came for a while; at most so many seconds."""
        deadline = time.perf_counter() + seconds
        while self.read_for(1.0) > AT_REST and time.perf_counter() < deadline:
            pass

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()
        os.close(self._master)


@contextlib.contextmanager
def app_in_terminal(workspace: Workspace) -> Iterator[Terminal]:
    """The app over `workspace`, with settings and state of its own, at 120×40."""
    root = str(installation_root())
    home = str(workspace.root.parent)
    environment = {
        **os.environ,
        "PYTHONPATH": root,
        "WORKBENCH_HOME": str(workspace.root),
        "TERM": "xterm-256color",
        "COLORTERM": "truecolor",
        **{f"XDG_{name}_HOME": home for name in ("CONFIG", "STATE", "DATA", "CACHE")},
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program is compiled once
    terminal = Terminal([sys.executable, "-P", "-m", "workbench"], environment)
    try:
        yield terminal
    finally:
        terminal.close()


def make_runs(folder: Path, names: list[str]) -> tuple[Workspace, list[RunDir]]:
    """A workspace with runs that say they are at work."""
    workspace = Workspace(folder / "workspace").ensure()
    runs = []
    for number, name in enumerate(names):
        run = create_run(workspace, RunSpec(stage="pretrain", name=name, settings={}, created=time.time() - number))
        run.write_state(running(0))
        runs.append(run)
    return workspace, runs


def running(step: int) -> RunState:
    """The state of a run at work."""
    return RunState(
        status="running",
        step=step,
        total=1_000_000,
        rate=40.0,
        eta=(1_000_000 - step) / 40.0,
        heartbeat=time.time(),
        host=socket.gethostname(),
        device="cpu",
    )


def metric_row(step: int) -> dict[str, float]:
    """A row as pre-training writes it, with validation now and then."""
    noise = random.Random(step).gauss(0, 0.05)
    loss = 1.5 + 3 * math.exp(-step / 500) + noise
    row = {
        "step": step,
        "time": time.time(),
        "train/loss": loss,
        "lr": 1e-3,
        "grad_norm": 0.8 + noise,
        "tokens": 768.0 * step,
        "tokens_per_s": 36_000 + 1_000 * noise,
    }
    return row | ({"val/loss": loss + 0.1, "val/bits_per_byte": loss / 0.69} if step % 50 == 0 else {})


def append_rows(run: RunDir, first: int, count: int) -> None:
    """Append rows `first` … to a run's metrics in one write."""
    rows = b"".join(msgspec.json.encode(metric_row(step)) + b"\n" for step in range(first, first + count))
    with run.metrics.open("ab") as file:
        file.write(rows)


def write_forever(folders: list[str], rows: int = 4, times_a_second: float = 10.0) -> None:
    """Hold the runs' locks and log to all of them, as that many workers would: `rows` to each at a time."""
    runs = [RunDir(Path(folder)) for folder in folders]
    locks = [run.acquire() for run in runs]
    assert all(lock is not None for lock in locks)
    step = 1
    while True:
        for run in runs:
            append_rows(run, step, rows)
            run.write_state(running(step))
        step += rows
        time.sleep(1 / times_a_second)


@contextlib.contextmanager
def writer(runs: list[RunDir], rows: int = 4) -> Iterator[None]:
    """Another process that logs to `runs` until the block ends: `rows` to each, ten times a second."""
    code = "import sys; from benchmarks.ui import write_forever; write_forever(sys.argv[2:], int(sys.argv[1]))"
    environment = {**os.environ, "PYTHONPATH": str(installation_root())}
    folders = [str(run.path) for run in runs]
    process = subprocess.Popen([sys.executable, "-c", code, str(rows), *folders], env=environment)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def first_paint(folder: Path, rounds: int = 5, count: int = 200) -> float:
    """Seconds from starting the app to its first screen, beyond starting Python, with so many runs in the workspace;
    the best of `rounds`.
    """
    workspace, _ = make_runs(folder, [f"run-{number}" for number in range(count)])
    painted = bare = math.inf
    for _ in range(rounds):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        bare = min(bare, time.perf_counter() - start)
        start = time.perf_counter()
        with app_in_terminal(workspace) as terminal:
            terminal.wait_for(HOME)
            painted = min(painted, time.perf_counter() - start)
    return painted - bare


def attach(folder: Path, rows: int = 100_000, rounds: int = 3) -> float:
    """Seconds to read a run of `rows` rows into its curves."""
    _, runs = make_runs(folder, ["long"])
    append_rows(runs[0], 1, rows)

    def attach_once() -> None:
        watch = Watch(runs[0])
        watch.catch_up()
        assert watch.curves.latest("lr") == (rows, 1e-3)

    return best_of(rounds, attach_once)


def plot_frame(points: int = 1_000_000, rounds: int = 10) -> float:
    """Seconds for a frame of 120×30 with two curves, one of them of `points` points."""
    series = Series()
    for start in range(0, points, 10_000):
        steps = range(start, start + 10_000)
        series.extend(steps, [math.exp(-step / points) + random.random() / 10 for step in steps])
    few = Curve([(points * i / 20, 1.0) for i in range(20)], 1, "◆", joined=False)

    def draw() -> None:
        curves = [Curve(outline(series.buckets), 0), few]
        frame(curves, window(curves), 120, 30)

    draw()
    return best_of(rounds, draw)


def overlay_frame(folder: Path, count: int = 8, rows: int = 20_000, rounds: int = 10) -> float:
    """Seconds for a frame of 120×30 with `count` runs on it."""
    _, runs = make_runs(folder, [f"run-{number}" for number in range(count)])
    shown = []
    for place, run in enumerate(runs):
        append_rows(run, 1, rows)
        track = Track(run.metrics)
        track.catch_up()
        shown.append(Shown(run.id, track, place, MARKERS[place % len(MARKERS)]))
    return best_of(rounds, lambda: build(overlay(shown, "train/loss", Look()), 120, 30))


def bytes_per_tick(folder: Path, ticks: int = 20, rows: int = 10) -> list[int]:
    """Bytes that each tick of a watched run sends to a terminal of 120×40: `rows` new rows and a new state."""
    workspace, (run,) = make_runs(folder, ["watched"])
    append_rows(run, 1, 900)
    lock = run.acquire()
    counts = []
    with app_in_terminal(workspace) as terminal:
        open_run(terminal)
        for tick in range(ticks):
            append_rows(run, 901 + tick * rows, rows)
            run.write_state(running(900 + (tick + 1) * rows))
            counts.append(terminal.read(60.0) + terminal.read_for(0.6))
    assert lock is not None
    os.close(lock)
    return counts


EIGHT = [f"run-{number}-of-eight" for number in range(8)]
"""Names of runs that log at once."""


def key_to_paint(folder: Path, presses: int = 100) -> list[float]:
    """Seconds from a key to the screen that answers it, while eight runs log and one of them is drawn."""
    workspace, runs = make_runs(folder, EIGHT)
    for run in runs:
        append_rows(run, 1, 20_000)
    pause = random.Random(0)
    with writer(runs), app_in_terminal(workspace) as terminal:
        open_runs(terminal)
        moves = up_and_down(terminal)
        return [next(moves) for _ in range(presses) if terminal.read_for(pause.uniform(0.02, 0.12)) >= 0]


def open_runs(terminal: Terminal) -> None:
    """From Home to the list of the eight, drawn."""
    terminal.wait_for(HOME)
    terminal.press("R")
    terminal.wait_for(EIGHT[-1])
    terminal.read_for(1.5)


def up_and_down(terminal: Terminal) -> Iterator[float]:
    """Move the cursor along the eight, back and forth: the seconds from each key to the row that it leads to."""
    at, step = 0, 1
    while True:
        step = -1 if at == len(EIGHT) - 1 else 1 if at == 0 else step
        at += step
        seen = len(terminal.output)
        start = time.perf_counter()
        terminal.press("j" if step > 0 else "k")
        terminal.wait_for(EIGHT[at], start=seen)
        yield time.perf_counter() - start


def open_run(terminal: Terminal) -> None:
    """From Home to the screen of the newest run, drawn and at rest."""
    terminal.wait_for(HOME)
    terminal.press("R")
    terminal.wait_for("watched")
    terminal.wait_for_rest()
    terminal.press("\r")
    terminal.wait_for("grad_norm")
    terminal.wait_for_rest()


def percentile(values: list[float], share: float) -> float:
    """The smallest value that `share` of the values do not exceed."""
    return sorted(values)[min(len(values) - 1, math.ceil(share * len(values)) - 1)]


def best_of(rounds: int, action: Callable[[], object]) -> float:
    """The least seconds that `action` takes."""
    best = math.inf
    for _ in range(rounds):
        start = time.perf_counter()
        action()
        best = min(best, time.perf_counter() - start)
    return best


def main() -> None:
    """Print a table: what was measured, the figure, the target."""
    rows: list[tuple[str, str, str]] = []
    with tempfile.TemporaryDirectory() as name:
        folders = iter([Path(name) / str(number) for number in range(9)])

        def here() -> Path:
            folder = next(folders)
            folder.mkdir()
            return folder

        rows.append(
            ("first paint with 200 runs, beyond starting Python", f"{first_paint(here()) * 1e3:.0f} ms", "300 ms")
        )
        rows.append(("attach to 100,000 rows", f"{attach(here()) * 1e3:.0f} ms", "500 ms"))
        rows.append(("plot frame, 1,000,000 points", f"{plot_frame() * 1e3:.1f} ms", "30 ms"))
        rows.append(("plot frame, eight runs", f"{overlay_frame(here()) * 1e3:.1f} ms", "30 ms"))
        counts = bytes_per_tick(here())
        rows.append(("bytes a metric tick, median", f"{sorted(counts)[len(counts) // 2]:,} B", ""))
        rows.append(("bytes a metric tick, largest", f"{max(counts):,} B", "8,192 B"))
        delays = key_to_paint(here(), presses=200)
        rows.append(("key to paint, eight runs logging, median", f"{percentile(delays, 0.5) * 1e3:.0f} ms", ""))
        rows.append(("key to paint, eight runs logging, p99", f"{percentile(delays, 0.99) * 1e3:.0f} ms", "50 ms"))
    width = max(len(row[0]) for row in rows)
    print(f"{'':{width}}  {'measured':>10}  {'target':>10}")
    for what, measured, target in rows:
        print(f"{what:{width}}  {measured:>10}  {target:>10}")


if __name__ == "__main__":
    main()
