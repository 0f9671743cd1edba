"""Judging in a set of 100,000 prompts: opening the screen, and a key to the next prompt painted.

    python -m benchmarks.rank [PROMPTS]

The app runs in a real pseudo-terminal. Of the prompts 60 % are judged already, by the same person.
"""

from __future__ import annotations

import math
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from benchmarks.ui import HOME, Terminal, app_in_terminal, percentile
from stages.store.labels import open_labels, spans
from stages.store.workspace import Workspace
from workbench.labelling import annotator_name

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
            (
                (n * K + k + 1, n + 1, k, f"{WORDS} {n * 31 % 97} {k}. " * (k + 1), now)
                for n in range(prompts)
                for k in range(K)
            ),
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


def measure(folder: Path, prompts: int = 100_000, rounds: int = 5, each: int = 100) -> tuple[float, float, float]:
    """Seconds: opening, a key to the next prompt in the middle, and at p99; the best of `rounds` each."""
    workspace = Workspace(folder / "workspace").ensure()
    judged = prompts * 6 // 10
    generate(workspace, prompts, judged, annotator_name(None), repeat_share=0.0)
    opened = median = tail = math.inf
    for number in range(rounds):
        place = judged + number * each
        with app_in_terminal(workspace) as terminal:
            to_rank(terminal)
            opened = min(opened, open_screen(terminal, place))
            terminal.read_for(0.5)
            delays = rank_prompts(terminal, place, each)
            leave(terminal)
        median, tail = min(median, percentile(delays, 0.5)), min(tail, percentile(delays, 0.99))
    return opened, median, tail


def main(arguments: list[str]) -> None:
    prompts = int(arguments[0]) if arguments else 100_000
    with tempfile.TemporaryDirectory() as folder:
        opened, median, tail = measure(Path(folder), prompts)
    print(f"{prompts:,} prompts, 60 % of them judged")
    print(f"{'opening the screen':<36} {opened * 1000:7.0f} ms   (goal {OPEN * 1000:.0f} ms)")
    print(f"{'enter to the next prompt, median':<36} {median * 1000:7.0f} ms")
    print(f"{'enter to the next prompt, p99':<36} {tail * 1000:7.0f} ms   (goal {KEY * 1000:.0f} ms)")


if __name__ == "__main__":
    main(sys.argv[1:])
