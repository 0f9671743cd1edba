"""The tables of labels.db, and bringing an older file up to date.

    prompts      what is asked; one row for each different conversation
    completions  answers to it: by a checkpoint with its sampling settings, from a dataset, or written by a person
    sets         a body of work: prompts in an order, how they are judged, by how many people each
    set_prompts  the prompts of a set, each with the candidates that are to be judged; `key` is a hash of their texts
    labels       append-only, a row for each confirmed act: rank, pair, rate, write, skip, flag, undo
    leases       who is looking at which prompt just now, so that two people are not given the same one

Nothing in `labels` is ever changed or removed: a row that undoes or replaces another names it in `supersedes`. The
views `rankings`, `written` and `flags` show what is in force, for people with a SQLite shell.
"""

from __future__ import annotations

import sqlite3

from stages.store.errors import UserError

VERSION = 1

TABLES = """
CREATE TABLE prompts (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    messages TEXT NOT NULL,
    part TEXT NOT NULL,
    answer TEXT,
    source TEXT NOT NULL DEFAULT '',
    meta TEXT NOT NULL DEFAULT '{}',
    created REAL NOT NULL
) STRICT;

CREATE TABLE completions (
    id INTEGER PRIMARY KEY,
    prompt INTEGER NOT NULL REFERENCES prompts (id),
    run TEXT NOT NULL,
    k INTEGER NOT NULL,
    text TEXT NOT NULL,
    checkpoint TEXT NOT NULL DEFAULT '',
    sampling TEXT NOT NULL DEFAULT '{}',
    ended TEXT NOT NULL DEFAULT '',
    author TEXT NOT NULL DEFAULT '',
    created REAL NOT NULL,
    UNIQUE (run, prompt, k)
) STRICT;
CREATE INDEX completions_of_prompt ON completions (prompt);

CREATE TABLE sets (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    mode TEXT NOT NULL CHECK (mode IN ('rank', 'pair', 'rate', 'write')),
    people INTEGER NOT NULL DEFAULT 1,
    repeat_share REAL NOT NULL DEFAULT 0,
    created REAL NOT NULL
) STRICT;

CREATE TABLE set_prompts (
    set_id INTEGER NOT NULL REFERENCES sets (id),
    place INTEGER NOT NULL,
    prompt INTEGER NOT NULL REFERENCES prompts (id),
    candidates TEXT NOT NULL,
    key TEXT NOT NULL,
    PRIMARY KEY (set_id, place),
    UNIQUE (set_id, prompt, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE labels (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('rank', 'pair', 'rate', 'write', 'skip', 'flag', 'undo')),
    set_id INTEGER NOT NULL REFERENCES sets (id),
    place INTEGER NOT NULL,
    prompt INTEGER NOT NULL REFERENCES prompts (id),
    annotator TEXT NOT NULL,
    shown TEXT NOT NULL DEFAULT '[]',
    ranks TEXT,
    scores TEXT,
    completion INTEGER REFERENCES completions (id),
    verdict TEXT NOT NULL DEFAULT '',
    note TEXT NOT NULL DEFAULT '',
    origin TEXT NOT NULL DEFAULT '',
    seconds REAL NOT NULL DEFAULT 0,
    repeats INTEGER REFERENCES labels (id),
    supersedes INTEGER UNIQUE REFERENCES labels (id),
    created REAL NOT NULL
) STRICT;
CREATE INDEX labels_of_place ON labels (set_id, place);
CREATE INDEX labels_of_annotator ON labels (annotator, set_id);
CREATE INDEX labels_again ON labels (repeats) WHERE repeats IS NOT NULL;

CREATE TABLE leases (
    set_id INTEGER NOT NULL,
    place INTEGER NOT NULL,
    annotator TEXT NOT NULL,
    holder TEXT NOT NULL,
    until REAL NOT NULL,
    PRIMARY KEY (set_id, place, holder)
) STRICT, WITHOUT ROWID;

CREATE VIEW in_force AS
    SELECT * FROM labels AS l
    WHERE kind <> 'undo' AND NOT EXISTS (SELECT 1 FROM labels WHERE supersedes = l.id);
CREATE VIEW rankings AS SELECT * FROM in_force WHERE kind IN ('rank', 'pair', 'rate');
CREATE VIEW written AS SELECT * FROM in_force WHERE kind = 'write';
CREATE VIEW flags AS SELECT * FROM in_force WHERE kind = 'flag';

CREATE TRIGGER labels_stay BEFORE UPDATE ON labels BEGIN SELECT RAISE(ABORT, 'labels are never changed'); END;
CREATE TRIGGER labels_remain BEFORE DELETE ON labels BEGIN SELECT RAISE(ABORT, 'labels are never removed'); END;
"""


def prepare(connection: sqlite3.Connection, path: str) -> None:
    """Make the tables in an empty file. UserError for a file of a newer version, or of something else."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == VERSION:
        return
    if version > VERSION:
        raise UserError(f"{path} was written by a newer version of Workbench.", "Use that version, or a backup.")
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        if connection.execute("PRAGMA user_version").fetchone()[0] == VERSION:
            return  # another process was quicker
        if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            raise UserError(f"{path} is a database, but not of labels.", "Move it away.")
        for statement in _statements(TABLES):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")


def _statements(script: str) -> list[str]:
    """The statements of a script, in order; `executescript` would commit the transaction first."""
    found, held = list[str](), ""
    for line in script.splitlines():
        held += line + "\n"
        if sqlite3.complete_statement(held):
            found.append(held)
            held = ""
    return found
