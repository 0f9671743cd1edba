"""The tables of labels.db. Bringing an older file up to date is in migration.py.

    prompts      what is asked; one row for each different conversation
    completions  answers to it: by a checkpoint with its sampling settings, from a dataset, or written by a person
    sets         a body of work: prompts in an order, how they are judged, by how many people each
    set_prompts  the prompts of a set, each with the candidates that are to be judged; `key` is a hash of their texts
    labels       append-only, a row for each confirmed act: rank, pair, rate, write, skip, flag, undo
    leases       who is looking at which prompt just now, so that two people are not given the same one
    spans        which places of a set are done, as runs of places, with `tallies` how many; see spans.py

Nothing in `labels` is ever changed or removed: a row that undoes or replaces another names it in `supersedes`; one that
takes back a replacement puts what had been replaced in force again. A row that settles a disagreement names the labels
that it overrules in `settles`. The views `rankings`, `written` and `flags` show what is in force, for people with a
SQLite shell.
"""

from __future__ import annotations

import sqlite3

VERSION = 2

PROMPTS = """
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
"""

LEASES = """
CREATE TABLE leases (
    set_id INTEGER NOT NULL,
    place INTEGER NOT NULL,
    annotator TEXT NOT NULL,
    holder TEXT NOT NULL,
    until REAL NOT NULL,
    PRIMARY KEY (set_id, place, holder)
) STRICT, WITHOUT ROWID;
"""

LABELS = """
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
    supersedes INTEGER REFERENCES labels (id),
    settles TEXT,
    created REAL NOT NULL
) STRICT;
CREATE INDEX labels_of_place ON labels (set_id, place, annotator);
CREATE INDEX labels_of_annotator ON labels (annotator, set_id);
CREATE INDEX labels_again ON labels (repeats) WHERE repeats IS NOT NULL;
CREATE INDEX labels_superseded ON labels (supersedes) WHERE supersedes IS NOT NULL;

CREATE VIEW in_force AS
    SELECT * FROM labels AS l
    WHERE kind <> 'undo' AND NOT EXISTS (
        SELECT 1 FROM labels AS s WHERE s.supersedes = l.id
        AND NOT EXISTS (SELECT 1 FROM labels AS u WHERE u.supersedes = s.id AND u.kind = 'undo'));
CREATE VIEW rankings AS SELECT * FROM in_force WHERE kind IN ('rank', 'pair', 'rate');
CREATE VIEW written AS SELECT * FROM in_force WHERE kind = 'write';
CREATE VIEW flags AS SELECT * FROM in_force WHERE kind = 'flag';

CREATE TRIGGER labels_stay BEFORE UPDATE ON labels BEGIN SELECT RAISE(ABORT, 'labels are never changed'); END;
CREATE TRIGGER labels_remain BEFORE DELETE ON labels BEGIN SELECT RAISE(ABORT, 'labels are never removed'); END;
"""

BOOKS = """
CREATE TABLE spans (
    set_id INTEGER NOT NULL,
    annotator TEXT NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (set_id, annotator, first)
) STRICT, WITHOUT ROWID;

CREATE TABLE tallies (
    set_id INTEGER NOT NULL,
    annotator TEXT NOT NULL,
    places INTEGER NOT NULL,
    PRIMARY KEY (set_id, annotator)
) STRICT, WITHOUT ROWID;
"""


def create(connection: sqlite3.Connection) -> None:
    """Make all tables; within the caller's transaction."""
    run_script(connection, PROMPTS + LEASES + LABELS + BOOKS)
    connection.execute(f"PRAGMA user_version = {VERSION}")


def version_of(connection: sqlite3.Connection) -> int:
    """The version of the tables in a file; 0 for one that has none of ours."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def run_script(connection: sqlite3.Connection, script: str) -> None:
    """Run the statements of a script in order; `executescript` would commit the caller's transaction first."""
    held = ""
    for line in script.splitlines():
        held += line + "\n"
        if sqlite3.complete_statement(held):
            connection.execute(held)
            held = ""
