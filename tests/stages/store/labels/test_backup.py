"""Backups of labels.db: whole, verified, and equal when restored."""

from __future__ import annotations

import datetime
import subprocess
import sys
from pathlib import Path

import pytest

from stages.store.errors import WorkFailed
from stages.store.labels import Labels, open_labels
from stages.store.labels.backup import KEPT, back_up, backups, restore, verified
from tests.stages.store.labels.conftest import tasks


def label_all(labels: Labels, count: int) -> None:
    chosen = labels.add_set("mine", "rank", tasks(count))
    while (shown := labels.next(chosen.id, "ada")) is not None:
        labels.save(shown.label("rank", "ada", ranks=[4, 3, 2, 1], note="…"))


def test_a_backup_restores_equal_and_keeps_what_it_replaces(tmp_path: Path) -> None:
    path = tmp_path / "labels.db"
    with open_labels(path) as labels:
        label_all(labels, 5)
        before = labels.labels(history=True)
    made = back_up(path)
    assert made is not None and made.labels == 5
    with open_labels(path) as labels:
        label_all(labels, 8)
    restore(path, made.path)
    with open_labels(path) as labels:
        assert labels.labels(history=True) == before
        assert labels.find_set("mine").prompts == 5
    with open_labels(tmp_path / "labels.db.before-restore") as replaced:
        assert len(replaced.labels()) == 8


def test_nothing_that_was_replaced_is_replaced_in_its_turn(tmp_path: Path) -> None:
    path = tmp_path / "labels.db"
    with open_labels(path) as labels:
        made = back_up(path)
        label_all(labels, 5)
    assert made is not None
    kept = [restore(path, made.path).kept for _ in range(3)]
    assert len(set(kept)) == 3 and None not in kept
    with open_labels(tmp_path / "labels.db.before-restore") as first:
        assert len(first.labels()) == 5
    path.unlink()
    assert restore(path, made.path).kept is None


def killed_while_writing(path: Path) -> None:
    """Leave a file of labels with a rollback journal that is to be played back."""
    code = (
        "import os, sqlite3, sys\n"
        "db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "db.execute('PRAGMA cache_size = 5')\n"  # pages go to the disk before the end
        "db.execute('BEGIN IMMEDIATE')\n"
        "db.execute('UPDATE completions SET author = hex(randomblob(900))')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert path.with_name(f"{path.name}-journal").stat().st_size > 0


def test_what_a_killed_writer_left_does_not_get_into_what_is_restored(tmp_path: Path) -> None:
    path = tmp_path / "labels.db"
    with open_labels(path) as labels:
        made = back_up(path)
        label_all(labels, 200)
    assert made is not None
    killed_while_writing(path)
    kept = restore(path, made.path).kept
    assert verified(path) == 0
    assert kept is not None
    with open_labels(path) as labels, open_labels(kept) as replaced:
        assert labels.labels() == []
        assert len(replaced.labels()) == 200
        assert {one.author for one in replaced.completions([1, 2, 3])} == {""}


def test_labels_that_a_killed_writer_left_half_written_are_backed_up_as_they_were_before(tmp_path: Path) -> None:
    path = tmp_path / "labels.db"
    with open_labels(path) as labels:
        label_all(labels, 200)
    killed_while_writing(path)
    made = back_up(path)
    assert made is not None and made.labels == 200


def test_who_has_labels_open_that_are_replaced_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "labels.db"
    with open_labels(path) as labels:
        made = back_up(path)
        assert made is not None
        chosen = labels.add_set("mine", "rank", tasks(1))
        shown = labels.next(chosen.id, "ada")
        assert shown is not None
        restore(path, made.path)
        with pytest.raises(WorkFailed, match=r"replaced by another file meanwhile\. Open it again"):
            labels.save(shown.label("rank", "ada", ranks=[1, 2, 3, 4]))


def test_one_backup_a_day_and_the_newest_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "labels.db"
    assert back_up(path) is None
    open_labels(path).close()
    first = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    for day in range(KEPT + 3):
        for hour in (8, 20):
            back_up(path, when=first + datetime.timedelta(days=day, hours=hour))
    kept = backups(path)
    assert len(kept) == KEPT
    assert kept[0].name == "labels-2026-01-17.db"


def test_a_backup_is_taken_while_somebody_labels(tmp_path: Path) -> None:
    path = tmp_path / "labels.db"
    with open_labels(path) as labels:
        chosen = labels.add_set("mine", "rank", tasks(3))
        for done in range(3):
            shown = labels.next(chosen.id, "ada")
            assert shown is not None
            made = back_up(path)
            assert made is not None and made.labels == done
            labels.save(shown.label("rank", "ada", ranks=[1, 2, 3, 4]))


def test_a_damaged_backup_is_refused_and_what_is_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "labels.db"
    with open_labels(path) as labels:
        label_all(labels, 40)
    made = back_up(path)
    assert made is not None
    data = bytearray(made.path.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    made.path.write_bytes(data)
    with pytest.raises(WorkFailed, match="damaged"):
        restore(path, made.path)
    with open_labels(path) as labels:
        assert len(labels.labels()) == 40


def test_labels_that_are_damaged_do_not_replace_a_good_backup(tmp_path: Path) -> None:
    path = tmp_path / "labels.db"
    with open_labels(path) as labels:
        label_all(labels, 40)
    made = back_up(path)
    assert made is not None
    good = made.path.read_bytes()
    data = bytearray(path.read_bytes())
    data[4096:] = bytes(len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(WorkFailed):
        back_up(path)
    assert made.path.read_bytes() == good
