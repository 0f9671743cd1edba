"""SQLite's errors as sentences for people."""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from stages.store.errors import UserError, WorkFailed

PATIENCE = 20.0
"""Seconds that a writer waits for another before it gives up with a sentence."""

NOTHING_LOST = "Nothing that was saved before is lost."


@contextlib.contextmanager
def trouble(path: Path) -> Iterator[None]:
    """Turn what SQLite says about the file at `path` into one sentence with what to do about it."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise UserError(f"{path} does not take this: {error}.", NOTHING_LOST) from error
    except sqlite3.OperationalError as error:
        raise _failed(path, error) from error
    except sqlite3.DatabaseError as error:
        hint = "Restore a backup: `workbench labels restore`."
        raise WorkFailed(f"{path} is damaged: {error}.", hint) from error


def begin_writing(connection: sqlite3.Connection) -> None:
    """Begin a transaction that may write, after whoever else writes; sqlite3.OperationalError after PATIENCE.

    It asks again every few milliseconds. SQLite's own waiting sleeps up to a tenth of a second between two attempts, so
    that somebody who writes without pause, a model that labels, would keep a person out for as long as it works.
    """
    (longest,) = connection.execute("PRAGMA busy_timeout").fetchone()  # milliseconds
    deadline = time.monotonic() + longest / 1_000
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if not is_busy(error) or time.monotonic() > deadline:
                    raise
            time.sleep(random.uniform(0.001, 0.008))
    finally:
        connection.execute(f"PRAGMA busy_timeout = {longest}")


def is_busy(error: sqlite3.OperationalError) -> bool:
    """Whether somebody else holds the file. SQLite's primary result code is the low byte of every extended one."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _failed(path: Path, error: sqlite3.OperationalError) -> WorkFailed:
    """By SQLite's primary result code."""
    if is_busy(error):
        return WorkFailed(f"{path} was busy for {PATIENCE:.0f} seconds.", "Close what else is using it; try again.")
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_FULL:
            return WorkFailed(f"The disk that holds {path} is full.", f"Free some space there. {NOTHING_LOST}")
        case sqlite3.SQLITE_READONLY if error.sqlite_errorcode == sqlite3.SQLITE_READONLY_DBMOVED:
            return WorkFailed(f"{path} was replaced by another file meanwhile.", f"Open it again. {NOTHING_LOST}")
        case sqlite3.SQLITE_READONLY:
            hint = f"Change its permissions, or use another workspace with WORKBENCH_HOME. {NOTHING_LOST}"
            return WorkFailed(f"{path} cannot be written: it is read-only.", hint)
    return WorkFailed(f"Labels cannot be read or written: {error}, in {path}{_free(path)}.", NOTHING_LOST)


def _free(path: Path) -> str:
    """How much room its disk has, in brackets, where that can be told."""
    try:
        return f" ({shutil.disk_usage(path.parent).free / 1e6:,.0f} MB free)"
    except OSError:
        return ""
