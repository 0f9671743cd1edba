"""Directories of runs as a bad disk, a careless hand or another program leaves them."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from stages.store.notes import Notes, write_notes
from stages.store.rundir import Parent, RunDir
from stages.store.workspace import Workspace
from tests.workbench.conftest import CREATED, DATASET_DIGEST, add_checkpoint, add_metrics, add_run

WILD: list[Any] = [
    None, True, -1, 0, 2.5, 1e308, 10**9, 2**63, 10**400, "", "\x1b[2J", "\udc80", "x" * 10_000, [], [[]], {}, "NaN",
    {"a": {"b": {"c": 1}}}, "../../etc/passwd", "no such stage", "[/red]",
]  # fmt: skip
GARBAGE = [
    b"", b"{", b"null", b"[]", b"\xff\xfe\x00", b"[" * 100_000, b'{"step": NaN}', b"\xef\xbb\xbf{}", b"\x00" * 4_096,
    b'{"step": 1, "train/loss": "low"}\n', b'{"step": "x"}\n{}\n3\n', b'{"step": 1e400, "train/loss": 1}\n',
]  # fmt: skip
STATES = ["finished", "running", "failed", "paused", "queued"]


def whole_run(workspace: Workspace, name: str, number: int, status: str = "finished") -> RunDir:
    """A run with all that a run may have."""
    parents = {"dataset": Parent("world", DATASET_DIGEST)}
    run = add_run(workspace, "pretrain", name, status, created=CREATED + number, parents=parents, settings={"lr": 0.1})
    add_metrics(run, 20)
    add_checkpoint(run, 100, parents=parents)
    run.log.write_text("beginning\nending\n")
    run.append_event("started", pid=1)
    run.samples.write_bytes(msgspec.json.encode({"step": 10, "prompt": "One", "text": "two"}) + b"\n")
    write_notes(run, Notes(note="a good one"))
    return run


def damaged_run(workspace: Workspace, draw: random.Random, number: int) -> RunDir:
    """A run of which one to three things are wrong."""
    run = whole_run(workspace, f"damaged-{number}", number, draw.choice(STATES))
    for _ in range(draw.randint(1, 3)):
        files = [path for path in run.path.rglob("*") if path.is_file()]
        if files:
            draw.choice(WAYS)(draw, draw.choice(files))
    return run


def lost(draw: random.Random, path: Path) -> None:
    path.unlink()


def garbage(draw: random.Random, path: Path) -> None:
    path.write_bytes(draw.choice(GARBAGE))


def cut_short(draw: random.Random, path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: draw.randrange(len(data) + 1)])


def flipped(draw: random.Random, path: Path) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(min(len(data), draw.randint(1, 8))):
        data[draw.randrange(len(data))] = draw.randrange(256)
    path.write_bytes(data)


def half_a_line(draw: random.Random, path: Path) -> None:
    with path.open("ab") as file:
        file.write(draw.choice([b'{"step": 210, "train/lo', b"\n\n\n", b'\x80\n{"step": 5}\n', b"}\n"]))


def a_folder(draw: random.Random, path: Path) -> None:
    path.unlink()
    path.mkdir()


def gone_with_its_folder(draw: random.Random, path: Path) -> None:
    folder = path.parent
    if (folder / "spec.json") != path and folder.parent.name != "runs":
        shutil.rmtree(folder)


def other_values(draw: random.Random, path: Path) -> None:
    """Change, drop or add what the lines of a JSON file say."""
    made = []
    for line in path.read_bytes().splitlines() if path.suffix == ".jsonl" else [path.read_bytes()]:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            for _ in range(draw.randint(0, 2)):
                row[draw.choice([*row, "step", "error", "result", "parents"])] = draw.choice(WILD)
            if row and draw.random() < 0.3:
                row.pop(draw.choice(list(row)))
        made.append(json.dumps(row))
    path.write_text("\n".join(made) + "\n" * (path.suffix == ".jsonl"))


WAYS: list[Callable[[random.Random, Path], None]] = [
    lost, garbage, cut_short, flipped, half_a_line, a_folder, gone_with_its_folder, other_values, other_values,
]  # fmt: skip
