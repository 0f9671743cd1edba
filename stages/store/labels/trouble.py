"""SQLite's errors as sentences for people."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
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


def _failed(path: Path, error: sqlite3.OperationalError) -> WorkFailed:
    """By SQLite's primary result code, which the low byte of every extended one holds."""
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return WorkFailed(f"{path} was busy for {PATIENCE:.0f} seconds.", "Close what else is using it; try again.")
        case sqlite3.SQLITE_FULL:
            return WorkFailed(f"The disk that holds {path} is full.", f"Free some space there. {NOTHING_LOST}")
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
