"""Making the tables of an empty labels.db, and bringing a file of an older version up to date.

The old file is copied first, to `labels-backups/before-version-<n>.db`, and the copy is verified. The change is one
transaction, checked before it is committed: whatever happens on the way, the old file stands as it was.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from stages.store.errors import UserError, WorkFailed
from stages.store.labels import schema, spans
from stages.store.labels.backup import FOLDER, keep_copy

_OLD_COLUMNS = (
    "id, kind, set_id, place, prompt, annotator, shown, ranks, scores, completion, verdict, note, origin, seconds, "
    "repeats, supersedes, created"
)


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Have the tables of this version in a file, its connection outside of a transaction.

    UserError for a file of a newer version, or of something else; WorkFailed when an older one could not be copied or
    changed.
    """
    version = schema.version_of(connection)
    if version == schema.VERSION:
        return
    if version > schema.VERSION:
        raise UserError(f"{path} was written by a newer version of Workbench.", "Use that version, or a backup.")
    connection.execute("PRAGMA foreign_keys = OFF")  # a table that others refer to is replaced
    try:
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            _bring_up(connection, path)
    finally:
        connection.execute("PRAGMA foreign_keys = ON")


def _bring_up(connection: sqlite3.Connection, path: Path) -> None:
    version = schema.version_of(connection)
    if version == schema.VERSION:
        return  # another process was quicker
    if version == 0:
        if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            raise UserError(f"{path} is a database, but not of labels.", "Move it away.")
        schema.create(connection)
        return
    held = keep_copy(path, path.parent / FOLDER / f"before-version-{schema.VERSION}.db")
    _from_1_to_2(connection)
    connection.execute(f"PRAGMA user_version = {schema.VERSION}")
    (count,) = connection.execute("SELECT count(*) FROM labels").fetchone()
    if count != held or connection.execute("PRAGMA foreign_key_check").fetchone():
        raise WorkFailed(f"{path} could not be brought up to date; it was left as it is.", "Restore a backup of it.")


def _from_1_to_2(connection: sqlite3.Connection) -> None:
    """A label may be replaced again after its replacement was taken back; disagreements are settled; spans are kept."""
    for view in ("rankings", "written", "flags", "in_force"):
        connection.execute(f"DROP VIEW {view}")
    connection.execute("PRAGMA legacy_alter_table = ON")  # or what refers to labels would follow the old table
    connection.execute("ALTER TABLE labels RENAME TO labels_1")
    connection.execute("PRAGMA legacy_alter_table = OFF")
    for index in ("labels_of_place", "labels_of_annotator", "labels_again"):
        connection.execute(f"DROP INDEX {index}")
    for trigger in ("labels_stay", "labels_remain"):
        connection.execute(f"DROP TRIGGER {trigger}")
    schema.run_script(connection, schema.LABELS)
    connection.execute(f"INSERT INTO labels ({_OLD_COLUMNS}) SELECT {_OLD_COLUMNS} FROM labels_1 ORDER BY id")
    connection.execute("DROP TABLE labels_1")
    schema.run_script(connection, schema.BOOKS)
    spans.rebuild(connection)
