"""A disk that is full or read-only, a file that is damaged: one sentence, and nothing that was saved is lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stages.store.errors import WorkFailed
from stages.store.labels import Labels, open_labels
from stages.store.labels.backup import FOLDER, back_up, restore
from stages.store.workspace import installation_root
from tests.stages.store.labels.conftest import tasks

FULL = """
import json, os, resource, subprocess, sys
from pathlib import Path
from stages.store.errors import WorkFailed
from stages.store.labels import open_labels
from stages.store.labels.backup import FOLDER, back_up
from tests.stages.store.labels.conftest import tasks

how, folder = sys.argv[1], Path(sys.argv[2])
path, filler, found = folder / "labels.db", folder / "filler", {}

def fill():
    if how == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, resource.RLIM_INFINITY))
        return
    with filler.open("wb", buffering=0) as file:
        for size in (4096, 512):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                pass

def empty():
    if how == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    else:
        filler.unlink()

def sentence(act):
    try:
        act()
    except WorkFailed as error:
        return str(error)
    return "nothing was said"

labels = open_labels(path)
chosen = labels.add_set("mine", "rank", tasks(60))
told = []
for _ in range(20):
    shown = labels.next(chosen.id, "ada")
    told.append(labels.save(shown.label("rank", "ada", ranks=[4, 3, 2, 1], note="x" * 300)).id)
kept = back_up(path).path
good = kept.read_bytes()
shown = labels.next(chosen.id, "ada")
fill()
wanted = shown.label("rank", "ada", ranks=[1, 2, 3, 4], note="x" * 9_000)
found["saving"] = sentence(lambda: labels.save(wanted))
found["backing up"] = sentence(lambda: back_up(path))
found["the good backup is there"] = kept.read_bytes() == good
empty()
found["strays"] = [one.name for one in (folder / FOLDER).iterdir() if one != kept]
told.append(labels.save(wanted).id)
found["kept"] = [one.id for one in labels.labels()] == told
found["sound"] = labels._db.execute("PRAGMA integrity_check").fetchone()[0]
found["counted"] = labels.count(chosen.id)
if how == "disk":
    labels.close()
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    labels = open_labels(path)
    found["read-only"] = sentence(lambda: labels.next(chosen.id, "ada"))
    found["read-only backup"] = sentence(lambda: back_up(path))
    found["still read"] = len(labels.labels())
print(json.dumps(found))
"""


def run(how: str, folder: Path, *before: str) -> dict[str, Any]:
    """What the script above found, in a process of its own."""
    command = [*before, sys.executable, "-P", "-c", FULL, how, str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(installation_root())}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def nothing_was_lost(found: dict[str, Any], folder: Path) -> None:
    assert str(folder) in found["saving"] and str(folder) in found["backing up"]
    assert all(said.count("\n") == 0 and "lost" in said for said in (found["saving"], found["backing up"]))
    assert found["the good backup is there"] and found["strays"] == []
    assert (found["kept"], found["sound"], found["counted"]) == (True, "ok", 21)


def test_a_file_that_may_not_grow_is_one_sentence_and_nothing_is_lost(tmp_path: Path) -> None:
    nothing_was_lost(run("limit", tmp_path), tmp_path)


def test_a_disk_that_is_full_or_read_only_is_one_sentence_and_nothing_is_lost(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    mount = 'mount -t tmpfs -o size=600k tmpfs "$1" && shift && exec "$@"'
    before = [str(unshare), "-rm", "sh", "-c", mount, "sh", str(tmp_path)]
    if unshare is None or subprocess.run([*before, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no file system may be mounted here")
    found = run("disk", tmp_path, *before)
    nothing_was_lost(found, tmp_path)
    assert "is full" in found["saving"] and "is full" in found["backing up"]
    assert "read-only" in found["read-only"] and "read-only" in found["read-only backup"]
    assert found["still read"] == 21


def damage(path: Path) -> None:
    """Write over all but the first page, and count a change there, so that nobody trusts pages read before."""
    data = bytearray(path.read_bytes())
    data[27] ^= 1
    data[4096:] = b"\xa5" * (len(data) - 4096)
    path.write_bytes(data)


def test_a_file_that_is_damaged_while_one_labels_is_one_sentence_for_reading_and_writing(labels: Labels) -> None:
    chosen = labels.add_set("mine", "rank", tasks(40))
    shown = labels.next(chosen.id, "ada")
    assert shown is not None
    made = back_up(labels.path)
    assert made is not None
    damage(labels.path)
    label = shown.label("rank", "ada", ranks=[1, 2, 3, 4])
    acts = (
        lambda: labels.sets(),
        lambda: labels.labels(),
        lambda: labels.count(chosen.id, "ada"),
        lambda: labels.at(chosen.id, 3),
        lambda: labels.prompt(shown.prompt_id),
        lambda: labels.completions(label.shown),
        lambda: labels.next(chosen.id, "ada"),
        lambda: labels.save(label),
        lambda: back_up(labels.path),
    )
    for act in acts:
        with pytest.raises(WorkFailed, match=r"labels\.db is damaged"):
            act()
    labels.close()
    restore(labels.path, made.path)
    with open_labels(labels.path) as again:
        assert again.find_set("mine").prompts == 40
    assert FOLDER in os.listdir(labels.path.parent)
