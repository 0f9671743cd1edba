"""Verified backups of labels.db: one a day and one at exit, in `labels-backups/` beside it."""

from __future__ import annotations

import contextlib
import datetime
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from stages.store.errors import UserError, WorkFailed
from stages.store.files import disk_errors, sync_folder, temporary_beside, unused
from stages.store.labels.trouble import PATIENCE, is_busy, trouble

KEPT = 14
"""Backups that are kept, the newest."""

FOLDER = "labels-backups"


class Backup(NamedTuple):
    """One backup, and how many label rows it holds."""

    path: Path
    labels: int


class Restored(NamedTuple):
    """How many label rows came back, and where what they replaced is kept, if there was anything."""

    labels: int
    kept: Path | None


def back_up(path: Path, *, when: datetime.datetime | None = None) -> Backup | None:
    """Copy labels.db as it stands now (SQLite's backup API), check the copy, and only then let it take its name.

    One backup a day: a later one of the same day takes the place of the earlier once it is verified. None when there
    are no labels. Raises WorkFailed when the copy does not verify; nothing that was there before is touched then.
    """
    if not path.is_file():
        return None
    day = (when or datetime.datetime.now(datetime.UTC)).strftime("%Y-%m-%d")
    final = path.parent / FOLDER / f"labels-{day}.db"
    count = keep_copy(path, final)
    for old in sorted(final.parent.glob("labels-*.db"))[:-KEPT]:
        with disk_errors(final.parent):
            old.unlink(missing_ok=True)  # another process may be at it too
    return Backup(final, count)


def keep_copy(path: Path, final: Path) -> int:
    """Copy labels.db to `final`, which appears, or is replaced, when the copy is verified; how many label rows it has.

    WorkFailed naming the disk when it is full or read-only, or labels.db when the copy shows that it is damaged.
    """
    with disk_errors(final.parent.parent), trouble(final):
        final.parent.mkdir(exist_ok=True)
        temporary = temporary_beside(final)
        try:
            _copy(path, temporary)
            count = verified(temporary, path)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(final)
            sync_folder(final.parent)
        finally:
            temporary.unlink(missing_ok=True)
    return count


def backups(path: Path) -> list[Path]:
    """The backups of labels.db, the newest first."""
    return sorted((path.parent / FOLDER).glob("labels-*.db"), reverse=True)


def restore(path: Path, backup: Path) -> Restored:
    """Put a verified backup in the place of labels.db; what was there is kept beside it as labels.db.before-restore.

    Nobody writes meanwhile, and what had been left half written is undone first. Who has the old file open is refused
    from then on. WorkFailed when the backup is damaged, or somebody is writing all the time.
    """
    count = verified(backup)
    temporary = temporary_beside(path)
    with disk_errors(path.parent), trouble(path):
        try:
            _copy(backup, temporary)
            verified(temporary, backup)
            with _alone(path):
                kept = _set_aside(path)
                temporary.replace(path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    return Restored(count, kept)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep everybody else from writing a database, as far as it is one; undoes what a killed writer left half done."""
    if not path.is_file():
        yield
        return
    with contextlib.closing(sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and is_busy(error):
                raise
            # it is damaged, which is why it is to be replaced
        yield


def _set_aside(path: Path) -> Path | None:
    """Give what stands at `path` a second name that nothing has, and its rollback journal with it.

    A journal that stayed would be played back into the file that takes this place.
    """
    if not path.is_file():
        return None
    kept = unused(path.with_name(f"{path.name}.before-restore"))
    try:
        os.link(path, kept)
    except OSError:  # a file system without links: for a moment nothing has the name
        path.rename(kept)
    with contextlib.suppress(FileNotFoundError):
        path.with_name(f"{path.name}-journal").rename(kept.with_name(f"{kept.name}-journal"))
    return kept


def verified(path: Path, source: Path | None = None) -> int:
    """The number of label rows of a file that is sound; UserError when it is not there.

    WorkFailed when it is damaged, naming `source` where the file is only a copy of that.
    """
    if not path.is_file():
        raise UserError(f"There is no backup {path}.")
    try:
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
            (finding,) = connection.execute("PRAGMA integrity_check").fetchone()
            if finding == "ok" and not connection.execute("PRAGMA foreign_key_check").fetchone():
                return int(connection.execute("SELECT count(*) FROM labels").fetchone()[0])
    except sqlite3.DatabaseError as error:
        finding = error
    raise WorkFailed(f"{source or path} is damaged: {finding}.", "Use a backup: `workbench labels restore`.")


def _copy(source: Path, target: Path) -> None:
    """A database as it stands, whoever uses it meanwhile. What a killed writer left half done is undone in it first."""
    with (
        contextlib.closing(sqlite3.connect(f"file:{quote(str(source))}?mode=rw", uri=True)) as read,
        contextlib.closing(sqlite3.connect(target)) as write,
    ):
        read.backup(write)
