"""One save of a label, killed before each call to the system that changes a file: it is there whole, or not at all."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from stages.store.labels import open_labels
from stages.store.workspace import installation_root
from tests.stages.store.labels.conftest import tasks

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None, reason="calls are counted by a C library loaded before libc"
)

SAVE = """
import ctypes, os, sys
from pathlib import Path
from stages.store.labels import open_labels
calls = ctypes.CDLL(None)
with open_labels(Path(sys.argv[1])) as labels:
    shown = labels.next(labels.find_set("mine").id, "ada")
    label = shown.label("rank", "ada", ranks=[1, 2, 3, 4])
    calls.kill_at_call(ctypes.c_long(int(sys.argv[2])))
    saved = labels.save(label)
    made = calls.calls_made()
    os.write(1, f"{saved.id} {made}".encode())
"""
RANKS = [1, 2, 3, 4]


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """What counts the calls, compiled."""
    made = tmp_path / "kill_at_call.so"
    source = Path(__file__).with_name("kill_at_call.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(made), str(source), "-ldl"], check=True)
    return made


def save(path: Path, library: Path, before: int) -> list[int]:
    """Save one label, and be killed before the call of that number; else the label's id, and the calls it took."""
    world = {**os.environ, "PYTHONPATH": str(installation_root()), "LD_PRELOAD": str(library)}
    command = [sys.executable, "-P", "-c", SAVE, str(path), str(before)]
    done = subprocess.run(command, env=world, capture_output=True, text=True)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return [int(word) for word in done.stdout.split()]


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.soak)])
def test_a_save_killed_before_a_call_loses_nothing_that_was_saved(tmp_path: Path, library: Path, every: int) -> None:
    path, kept = tmp_path / "labels.db", tmp_path / "kept.db"
    with open_labels(path) as labels:
        labels.add_set("mine", "rank", tasks(4))
    told, calls = save(path, library, 10_000)
    assert calls > 5, "a journal is written and synced, then the file, then the journal goes"
    shutil.copy(path, kept)
    stored = []
    for before in range(0, calls + every, every):
        shutil.copy(kept, path)
        told_now = save(path, library, before)
        assert bool(told_now) == (before >= calls)
        with open_labels(path) as labels:
            found = labels.labels(history=True)
            shown = labels.next(labels.find_set("mine").id, "ben")
            assert shown is not None
            labels.save(shown.label("rank", "ben", ranks=RANKS))
        assert [label.id for label in found][:1] == [told], "what was saved before is there"
        assert all(label.ranks == RANKS for label in found) and len(found) <= 2
        assert not told_now or [told_now[0]] == [label.id for label in found[1:]], "what was told is there"
        stored.append(len(found) == 2)
        assert sorted(entry.name for entry in tmp_path.glob("labels.db*")) == ["labels.db"], "the next save leaves none"
        with sqlite3.connect(path) as raw:
            assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert stored == sorted(stored) and stored[-1] and not stored[0], "from one call on it is there"
    print(f"{calls} calls, there from call {stored.index(True) * every} on")
