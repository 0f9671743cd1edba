"""Judging in a set of 100,000 prompts: opening the screen, and a key to the next prompt painted.

    python -m benchmarks.rank [PROMPTS [ROUNDS RANKINGS]]

The app runs in a real pseudo-terminal. Of the prompts 60 % are judged already, by the same person. A set of 1,000 takes
turns with it: what the size of the database costs is the difference.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import psutil

from benchmarks.ui import HOME, Terminal, app_in_terminal, percentile
from stages.store.labels import open_labels, spans
from stages.store.workspace import Workspace
from workbench.judging.labelling import annotator_name

OPEN, KEY = 0.300, 0.050
"""Seconds that the app may take: targets of the project."""

NAME = "many"
K = 4
WORDS = "the lantern stood by the gate while the keeper counted boats on the grey water"


def question(place: int) -> str:
    return f"Question {place:06d}?"


def generate(workspace: Workspace, prompts: int, judged: int, annotator: str, *, repeat_share: float = 0.05) -> None:
    """A set of so many prompts with K completions, the first `judged` of them judged by `annotator`.

    Written row by row past the store, which would take minutes.
    """
    with open_labels(workspace.labels) as labels:
        labels.add_set(NAME, "rank", [], repeat_share=repeat_share)
        set_id = labels.find_set(NAME).id
    db = sqlite3.connect(workspace.labels)
    now = time.time()
    with db:
        db.executemany(
            "INSERT INTO prompts (id, key, messages, part, created) VALUES (?, ?, ?, 'reward', ?)",
            ((n + 1, f"{n:064d}", _messages(n), now) for n in range(prompts)),
        )
        db.executemany(
            "INSERT INTO completions (id, prompt, run, k, text, checkpoint, ended, created) "
            "VALUES (?, ?, 'a-run', ?, ?, 'model@1', 'end', ?)",
            ((n * K + k + 1, n + 1, k, _answer(n, k), now) for n in range(prompts) for k in range(K)),
        )
        db.executemany("INSERT INTO set_prompts VALUES (?, ?, ?, ?, ?)", _places(set_id, prompts))
        db.executemany(
            "INSERT INTO labels (kind, set_id, place, prompt, annotator, shown, ranks, seconds, created) "
            "VALUES ('rank', ?, ?, ?, ?, ?, '[2,1,3,3]', 4.2, ?)",
            ((set_id, n, n + 1, annotator, _ids(n), now + n * 5) for n in range(judged)),
        )
        spans.rebuild(db)
    db.close()


def _answer(place: int, k: int) -> str:
    return f"{WORDS} {place * 31 % 97} {k}. " * (k + 1)


def _messages(place: int) -> str:
    return msgspec.json.encode([{"role": "user", "content": question(place)}]).decode()


def _ids(place: int) -> str:
    return msgspec.json.encode([place * K + k + 1 for k in range(K)]).decode()


def _places(set_id: int, prompts: int) -> Iterator[tuple[int, int, int, str, str]]:
    return ((set_id, n, n + 1, _ids(n), f"{n:064x}") for n in range(prompts))


def to_rank(terminal: Terminal) -> None:
    """From the start of the app to the list of label sets, its figures worked out."""
    terminal.wait_for(HOME)
    terminal.press("K")
    terminal.wait_for("Ranked alone at the top", seconds=300)
    terminal.read_for(0.5)


def open_screen(terminal: Terminal, place: int) -> float:
    """Seconds from enter on the set until the prompt at `place` is painted."""
    seen, start = len(terminal.output), time.perf_counter()
    terminal.press("\r")
    terminal.wait_for(question(place), start=seen)
    return time.perf_counter() - start


def rank_prompts(terminal: Terminal, first: int, count: int) -> list[float]:
    """Rank `count` prompts from `first`; the seconds from each enter until the next prompt is painted."""
    delays = []
    for place in range(first, first + count):
        terminal.press("213")
        terminal.read_for(0.08)
        seen, start = len(terminal.output), time.perf_counter()
        terminal.press("\r")
        terminal.wait_for(question(place + 1), start=seen)
        delays.append(time.perf_counter() - start)
        terminal.read_for(0.03)
    return delays


def leave(terminal: Terminal) -> None:
    """Back to the label sets, so that the prompt on the screen is given back before the app is closed."""
    seen = len(terminal.output)
    terminal.press("\x1b")
    terminal.wait_for("Ranked alone at the top", start=seen)


class Measured(NamedTuple):
    """Seconds, the best of the rounds each."""

    opened: float
    median: float
    tail: float
    """A key to the next prompt at p99."""
    cpu: float
    """Processor time of the app for a prompt: the three digits, the enter, and painting each."""


def measure(folder: Path, sizes: Sequence[int], rounds: int = 5, each: int = 100) -> list[Measured]:
    """What judging costs in sets of these sizes, which take turns: what else the machine does hits all alike."""
    workspaces = [Workspace(folder / str(size)).ensure() for size in sizes]
    for workspace, size in zip(workspaces, sizes, strict=True):
        generate(workspace, size, size // 2, annotator_name(None), repeat_share=0.0)
    found: list[list[Measured]] = [[] for _ in sizes]
    for number in range(rounds):
        for workspace, size, kept in zip(workspaces, sizes, found, strict=True):
            kept.append(_round(workspace, size // 2 + number * each, each))
    return [Measured(*map(min, zip(*kept, strict=True))) for kept in found]


def _round(workspace: Workspace, place: int, each: int) -> Measured:
    """Open the screen on the prompt at `place` and rank so many from there."""
    with app_in_terminal(workspace) as terminal:
        to_rank(terminal)
        opened = open_screen(terminal, place)
        terminal.read_for(0.5)
        app = psutil.Process(terminal.process.pid)
        before = sum(app.cpu_times()[:2])
        delays = rank_prompts(terminal, place, each)
        spent = (sum(app.cpu_times()[:2]) - before) / each
        leave(terminal)
    return Measured(opened, percentile(delays, 0.5), percentile(delays, 0.99), spent)


def main(arguments: list[str]) -> None:
    sizes = [int(arguments[0]) if arguments else 100_000, 1_000]
    rounds, each = (int(arguments[1]), int(arguments[2])) if len(arguments) > 2 else (5, 80)
    with tempfile.TemporaryDirectory() as folder:
        large, small = measure(Path(folder), sizes, rounds, each)
    print(f"{sizes[0]:,} prompts, 60 % of them judged; beside it, in turns, {sizes[1]:,}")
    for name, one, other, goal in (
        ("opening the screen", large.opened, small.opened, OPEN),
        ("enter to the next prompt, median", large.median, small.median, None),
        ("enter to the next prompt, p99", large.tail, small.tail, KEY),
        ("processor time for a prompt", large.cpu, small.cpu, None),
    ):
        aim = f"   (goal {goal * 1000:.0f} ms)" if goal is not None else ""
        print(f"{name:<36} {one * 1000:7.0f} ms {other * 1000:7.0f} ms{aim}")


if __name__ == "__main__":
    main(sys.argv[1:])
