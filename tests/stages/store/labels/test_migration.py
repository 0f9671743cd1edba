"""A labels.db of an older version is copied, then brought up to date; when that fails it stands as it was."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from stages.store.errors import WorkFailed
from stages.store.labels import open_labels, spans
from stages.store.labels.backup import verified

VERSION_1 = Path(__file__).with_name("version_1.sql")

ROWS = """
INSERT INTO sets VALUES (1, 'mine', 'rank', 1, 0.1, 5.0);
INSERT INTO prompts VALUES (1, 'a', '[{"role":"user","content":"Why?"}]', 'reward', NULL, '', '{}', 5.0);
INSERT INTO prompts VALUES (2, 'b', '[{"role":"user","content":"How?"}]', 'reward', NULL, '', '{}', 5.0);
INSERT INTO prompts VALUES (3, 'c', '[{"role":"user","content":"Who?"}]', 'reward', NULL, '', '{}', 5.0);
INSERT INTO completions (id, prompt, run, k, text, created) VALUES (1, 1, 'r', 0, 'So.', 5), (2, 1, 'r', 1, 'No.', 5);
INSERT INTO completions (id, prompt, run, k, text, created) VALUES (3, 2, 'r', 0, 'So.', 5), (4, 2, 'r', 1, 'No.', 5);
INSERT INTO completions (id, prompt, run, k, text, created) VALUES (5, 3, 'r', 0, 'So.', 5), (6, 3, 'r', 1, 'No.', 5);
INSERT INTO set_prompts VALUES (1, 0, 1, '[1,2]', 'x'), (1, 1, 2, '[3,4]', 'y'), (1, 2, 3, '[5,6]', 'z');
INSERT INTO labels (id, kind, set_id, place, prompt, annotator, shown, ranks, note, seconds, created)
    VALUES (1, 'rank', 1, 0, 1, 'ada', '[2,1]', '[1,2]', 'hm', 3.5, 6.0);
INSERT INTO labels (id, kind, set_id, place, prompt, annotator, shown, ranks, supersedes, created)
    VALUES (4, 'rank', 1, 0, 1, 'ada', '[2,1]', '[2,1]', 1, 7.0);
INSERT INTO labels (id, kind, set_id, place, prompt, annotator, shown, ranks, created)
    VALUES (5, 'rank', 1, 1, 2, 'ada', '[3,4]', '[1,1]', 8.0);
INSERT INTO labels (id, kind, set_id, place, prompt, annotator, supersedes, created)
    VALUES (6, 'undo', 1, 1, 2, 'ada', 5, 9.0);
INSERT INTO labels (id, kind, set_id, place, prompt, annotator, shown, ranks, repeats, created)
    VALUES (7, 'rank', 1, 0, 1, 'ada', '[1,2]', '[2,1]', 4, 9.5);
PRAGMA user_version = 1;
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A file as version 1 left it: a ranking replaced, one taken back, one asked again."""
    path = tmp_path / "labels.db"
    with sqlite3.connect(path) as db:
        db.executescript(VERSION_1.read_text() + ROWS)
    db.close()
    return path


def test_every_row_is_kept_and_what_is_in_force_stays_in_force(old: Path) -> None:
    with sqlite3.connect(old) as before:
        columns = [row[1] for row in before.execute("PRAGMA table_info(labels)")]
        rows = before.execute(f"SELECT {', '.join(columns)} FROM labels ORDER BY id").fetchall()
        in_force = [id_ for (id_,) in before.execute("SELECT id FROM in_force ORDER BY id")]
    before.close()
    with open_labels(old) as labels:
        assert labels._db.execute(f"SELECT {', '.join(columns)} FROM labels ORDER BY id").fetchall() == rows
        assert [one.id for one in labels.labels()] == in_force == [4, 7]
        assert (labels.count(1), labels.count(1, "ada"), labels.find_set("mine").prompts) == (1, 1, 3)
        assert labels._db.execute("PRAGMA foreign_key_check").fetchall() == []
        assert labels._db.execute("PRAGMA foreign_keys").fetchone() == (1,)
        shown = labels.next(1, "ada")
        assert shown is not None and shown.place == 1
        assert labels.save(shown.label("rank", "ada", ranks=[1, 2])).id == 8
    with sqlite3.connect(old) as raw, pytest.raises(sqlite3.IntegrityError, match="labels are never"):
        raw.execute("DELETE FROM labels")


def test_the_tables_are_those_of_a_new_file(old: Path, tmp_path: Path) -> None:
    def tables(path: Path) -> dict[str, str]:
        with open_labels(path) as labels:
            return dict(labels._db.execute("SELECT name, sql FROM sqlite_schema").fetchall())

    assert tables(old) == tables(tmp_path / "new.db")


def test_the_old_file_is_copied_first(old: Path) -> None:
    open_labels(old).close()
    copy = old.parent / "labels-backups" / "before-version-2.db"
    assert verified(copy) == 5
    with sqlite3.connect(copy) as kept:
        assert kept.execute("PRAGMA user_version").fetchone() == (1,)


def test_a_file_that_cannot_be_brought_up_to_date_stands_as_it_was(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = old.read_bytes()

    def fail(db: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("no more today")

    with monkeypatch.context() as patched:
        patched.setattr(spans, "rebuild", fail)
        with pytest.raises(WorkFailed, match="no more today"):
            open_labels(old)
    assert old.read_bytes() == before
    with open_labels(old) as labels:
        assert len(labels.labels()) == 2


def test_a_damaged_old_file_is_not_touched(old: Path) -> None:
    data = bytearray(old.read_bytes())
    data[8192:12288] = b"\xa5" * 4096  # a page of some table
    old.write_bytes(data)
    with pytest.raises(WorkFailed, match="damaged"):
        open_labels(old)
    assert old.read_bytes() == data
