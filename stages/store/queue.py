"""The device queue of one machine: ticket files, ordered by priority, then time.

A ticket's owner holds a lock on it, so the ticket of a dead worker is recognised and removed by the next one. Who is
first takes the device by a lock as well: an urgent ticket comes next, never beside the one at work.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from stages.store.files import TEMPORARY, disk_errors
from stages.store.locks import is_locked, try_lock
from stages.store.workspace import state_folder

PLACE = ".place-"
"""Prefix of the files whose locks stand for the device: as many as may work on it at once."""


class Ticket:
    """A place in the queue of one device, held until `release` or the end of the process."""

    def __init__(self, device: str, run_id: str, *, priority: int = 0, width: int = 1) -> None:
        self.folder = state_folder() / "queue" / _safe(device)
        self.width = width
        self._place: int | None = None
        name = f"{_rank(priority)}-{time.time_ns():020d}-{os.getpid()}-{_safe(run_id)}"
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            # Locked under a temporary name first: a ticket that is visible is held.
            temporary = self.folder / f"{TEMPORARY}{name}"
            self._descriptor = try_lock(temporary)
            self.path = self.folder / name
            temporary.rename(self.path)

    def ahead(self) -> list[str]:
        """The runs, by id, whose live tickets stand before this one; the next is the last."""
        return [_run_id(name) for name in _live(self.folder) if name < self.path.name]

    def ready(self) -> bool:
        """Whether the device is this ticket's: it is among the first `width`, and has found a place free."""
        if self._place is None and len(self.ahead()) < self.width:
            places = (try_lock(self.folder / f"{PLACE}{number}") for number in range(self.width))
            self._place = next((place for place in places if place is not None), None)
        return self._place is not None

    def set_priority(self, priority: int) -> None:
        """Stand where this priority stands; among equals the order of arrival stays."""
        path = self.folder / f"{_rank(priority)}-{self.path.name.split('-', 1)[1]}"
        if path != self.path:
            self.path.rename(path)
            self.path = path

    def release(self) -> None:
        """Give the place up. May be called twice."""
        self.path.unlink(missing_ok=True)
        for descriptor in (self._place, self._descriptor):
            if descriptor is not None:
                os.close(descriptor)
        self._place = self._descriptor = None


def _rank(priority: int) -> str:
    return f"{50 - priority:03d}"


def waiting(device: str) -> list[str]:
    """Ids of the runs that hold or await `device`, in order."""
    folder = state_folder() / "queue" / _safe(device)
    return [_run_id(name) for name in _live(folder)]


def _run_id(ticket: str) -> str:
    return ticket.split("-", 3)[3]


def _live(folder: Path) -> Iterator[str]:
    with contextlib.suppress(FileNotFoundError):
        for name in sorted(os.listdir(folder)):
            if name.startswith("."):
                continue
            if is_locked(folder / name):
                yield name
            else:
                (folder / name).unlink(missing_ok=True)


def _safe(text: str) -> str:
    return "".join(character if character.isalnum() or character in "-_." else "_" for character in text)
