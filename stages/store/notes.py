"""What people say about a run: a note, a bookmark, whether it is put away, how urgent it is. notes.json in its folder.

Only the app and the command line write it. A worker looks at how urgent its run is while it waits for a device.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from stages.store.errors import UNREADABLE, UserError
from stages.store.files import disk_errors, write_atomic
from stages.store.rundir import RunDir

FILE = "notes.json"
LONGEST = 10_000
"""Characters of a note."""
LARGEST = 9
"""Priorities lie between this and its negative."""


class Notes(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """notes.json."""

    note: str = ""
    bookmarked: bool = False
    archived: bool = False
    """Out of sight in lists, and otherwise as before."""
    priority: Annotated[int, msgspec.Meta(ge=-LARGEST, le=LARGEST)] = 0
    """Its place in the queue of a device: the higher comes first."""


NOTHING = Notes()


def notes_path(run: RunDir) -> Path:
    """Where the notes of a run lie, if there are any."""
    return run.path / FILE


def read_notes(run: RunDir) -> Notes:
    """What is said about a run. Raises UserError when the file is damaged."""
    path = notes_path(run)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Notes)
    except FileNotFoundError:
        return NOTHING
    except UNREADABLE as error:
        raise UserError(f"{path} cannot be read: {error}.", "Delete it to begin anew; the run is untouched.") from error


def write_notes(run: RunDir, notes: Notes) -> None:
    """Keep what is said about a run, durably. UserError: the note is too long, the run gone, the disk full."""
    if len(notes.note) > LONGEST:
        raise UserError(f"A note may have at most {LONGEST:,} characters.")
    with run.there(), disk_errors(run.path):
        write_atomic(notes_path(run), msgspec.json.encode(notes))
