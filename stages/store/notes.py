"""What people say about a run: a note, a bookmark, and whether it is put away. notes.json in the run's folder.

Only the app and the command line write it; the worker never looks at it.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from stages.store.errors import UserError
from stages.store.files import disk_errors, write_atomic
from stages.store.rundir import RunDir

FILE = "notes.json"
LONGEST = 10_000
"""Characters of a note."""


class Notes(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """notes.json."""

    note: str = ""
    bookmarked: bool = False
    archived: bool = False
    """Out of sight in lists, and otherwise as before."""


NOTHING = Notes()


def notes_path(run: RunDir) -> Path:
    return run.path / FILE


def read_notes(run: RunDir) -> Notes:
    """What is said about a run. Raises UserError when the file is damaged."""
    path = notes_path(run)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Notes)
    except FileNotFoundError:
        return NOTHING
    except (OSError, msgspec.DecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}.", "Delete it to begin anew; the run is untouched.") from error


def write_notes(run: RunDir, notes: Notes) -> None:
    """Keep what is said about a run, durably. Raises UserError when the note is too long or the disk refuses."""
    if len(notes.note) > LONGEST:
        raise UserError(f"A note may have at most {LONGEST:,} characters.")
    with disk_errors(run.path):
        write_atomic(notes_path(run), msgspec.json.encode(notes))
