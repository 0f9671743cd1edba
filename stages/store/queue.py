"""The device queue of one machine: ticket files, ordered by priority, then time.

A ticket's owner holds a lock on it, so the ticket of a dead worker is recognised and removed by the next one. Who is
first takes the device by a lock as well: an urgent ticket comes next, never beside the one at work. A ticket holds the
path of its run, which may be of any workspace of this person on the machine.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from stages.store.files import TEMPORARY, disk_errors
from stages.store.locks import is_locked, try_lock
from stages.store.workspace import state_folder

PLACE = ".place-"
"""Prefix of the files whose locks stand for the device: as many as may work on it at once."""


class Ticket:
    """A place in the queue of one device, held until `release` or the end of the process."""

    def __init__(
        self,
        device: str,
        run_id: str,
        *,
        priority: int = 0,
        width: int = 1,
        arrived: int | None = None,
        run: Path | None = None,
    ) -> None:
        """arrived: when, in nanoseconds since the epoch; left out: now. run: its directory, for those who wait."""
        self.folder = state_folder() / "queue" / _safe(device)
        self.width = width
        self._place: int | None = None
        arrived = time.time_ns() if arrived is None else arrived
        name = f"{_rank(priority)}-{arrived:020d}-{os.getpid()}-{_safe(run_id)}"
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            # Locked under a temporary name first: a ticket that is visible is held.
            temporary = self.folder / f"{TEMPORARY}{name}"
            self._descriptor = try_lock(temporary)
            temporary.write_bytes(os.fsencode(run.absolute()) if run is not None else b"")
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

    def give_way(self) -> None:
        """Leave the device to others for now; the ticket stays."""
        if self._place is not None:
            os.close(self._place)
            self._place = None

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


class Tickets:
    """Places in the queues of several devices, to be had all at once or not at all.

    All stand in the same order in every queue, and a run that gets only some of its devices leaves them at once: so
    two runs never wait for each other.
    """

    def __init__(
        self, devices: Sequence[str], run_id: str, *, priority: int = 0, width: int = 1, run: Path | None = None
    ) -> None:
        now = time.time_ns()
        self._tickets = [
            Ticket(device, run_id, priority=priority, width=width, arrived=now, run=run)
            for device in sorted(set(devices))
        ]

    def ahead(self) -> list[str]:
        """The runs, by id, that stand before this one in the longest of the queues; the next is the last."""
        return max((ticket.ahead() for ticket in self._tickets), key=len)

    def ready(self) -> bool:
        """Whether all devices are this run's."""
        if all(ticket.ready() for ticket in self._tickets):
            return True
        for ticket in self._tickets:
            ticket.give_way()
        return False

    def set_priority(self, priority: int) -> None:
        """Stand where this priority stands, in every queue."""
        for ticket in self._tickets:
            ticket.set_priority(priority)

    def release(self) -> None:
        """Give all places up. May be called twice."""
        for ticket in self._tickets:
            ticket.release()


def _rank(priority: int) -> str:
    return f"{50 - priority:03d}"


def waiting(device: str) -> list[str]:
    """Ids of the runs that hold or await `device`, in order."""
    folder = state_folder() / "queue" / _safe(device)
    return [_run_id(name) for name in _live(folder)]


def folder_of(run_id: str) -> Path | None:
    """The directory of a run that stands in a queue of this machine; None where its ticket does not say, or is gone."""
    for path in (state_folder() / "queue").glob("*/[!.]*"):
        if _run_id(path.name) == _safe(run_id):
            with contextlib.suppress(OSError):
                said = path.read_bytes()
                return Path(os.fsdecode(said)) if said else None
    return None


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
