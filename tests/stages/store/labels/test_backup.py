"""Backups of labels.db: whole, verified, and equal when restored."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from stages.store.errors import WorkFailed
from stages.store.labels import Labels, open_labels
from stages.store.labels.backup import KEPT, back_up, backups, restore
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
