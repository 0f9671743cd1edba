"""An acknowledged label is never lost, whenever the process that stored it dies, and whoever else writes."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from stages.store.labels import open_labels
from stages.store.workspace import installation_root
from tests.stages.store.labels.conftest import tasks

LABELLER = """
import sys
from pathlib import Path
from stages.store.labels import open_labels
path, annotator, most = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
with open_labels(path) as labels:
    chosen = labels.find_set("mine")
    for number in range(most):
        shown = labels.next(chosen.id, annotator)
        if shown is None:
            break
        ranks = [1 + (one.id * 7 + number) % 4 for one in shown.completions]
        saved = labels.save(shown.label("rank", annotator, ranks=ranks))
        print(saved.id, shown.prompt_id, *ranks, flush=True)
"""


def labeller(path: Path, annotator: str, most: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-c", LABELLER, str(path), annotator, str(most)],
        env={**os.environ, "PYTHONPATH": str(installation_root())},
        stdout=subprocess.PIPE,
        text=True,
    )


def acknowledged(output: str) -> dict[int, tuple[int, list[int]]]:
    """By label id: the prompt and the ranks that the labeller was told are stored. A torn last line was not told."""
    whole = output[: output.rfind("\n") + 1].splitlines()
    rows = [[int(word) for word in line.split()] for line in whole]
    return {row[0]: (row[1], row[2:]) for row in rows}


def kills(tmp_path: Path, rounds: int) -> None:
    path, told, chance = tmp_path / "labels.db", dict[int, tuple[int, list[int]]](), random.Random(5)
    with open_labels(path) as labels:
        labels.add_set("mine", "rank", tasks(rounds * 60))
    for _ in range(rounds):
        process = labeller(path, "ada", 10_000)
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(chance.randrange(1, 30))]
        os.kill(process.pid, signal.SIGKILL)
        told |= acknowledged("".join(lines) + process.stdout.read())
        process.wait()
    with open_labels(path) as labels:
        stored = {label.id: (label.prompt_id, label.ranks) for label in labels.labels(history=True)}
    assert len(told) > rounds
    assert told.items() <= stored.items()
    assert len({prompt for prompt, _ in stored.values()}) == len(stored), "no prompt is labelled twice"
    assert len(stored) - len(told) <= rounds, "at most the one row a kill that was stored and not yet told"
    with sqlite3.connect(path) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_labeller_killed_at_any_moment_loses_no_acknowledged_label(tmp_path: Path) -> None:
    kills(tmp_path, 50)


@pytest.mark.soak
def test_a_thousand_kills_lose_no_acknowledged_label(tmp_path: Path) -> None:
    kills(tmp_path, 1_000)


def together(tmp_path: Path, each: int) -> None:
    path = tmp_path / "labels.db"
    with open_labels(path) as labels:
        labels.add_set("mine", "rank", tasks(2 * each))
    people = [labeller(path, name, each) for name in ("ada", "ben")]
    told = [acknowledged(process.communicate(timeout=600)[0]) for process in people]
    assert [process.returncode for process in people] == [0, 0]
    with open_labels(path) as labels:
        stored = {label.id: (label.prompt_id, label.ranks) for label in labels.labels()}
    assert stored == told[0] | told[1]
    assert len(stored) == 2 * each
    assert len({prompt for prompt, _ in stored.values()}) == 2 * each, "nobody was given the other's prompt"
    with sqlite3.connect(path) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_two_people_label_one_set_at_once(tmp_path: Path) -> None:
    together(tmp_path, 100)


@pytest.mark.soak
def test_two_people_label_two_thousand_prompts_each_at_once(tmp_path: Path) -> None:
    together(tmp_path, 2_000)
