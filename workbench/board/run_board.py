"""All runs of a workspace as they stand, read cheaply enough to be asked every second."""

from __future__ import annotations

import threading
from typing import NamedTuple

from stages.store.errors import UserError
from stages.store.notes import NOTHING, Notes, notes_path, read_notes
from stages.store.rundir import RunDir, RunSpec, RunState, Status, list_runs
from stages.store.workspace import Workspace

LIVE: tuple[Status, ...] = ("queued", "running")


class Entry(NamedTuple):
    """One run as the list shows it. `status` is the truth: a run without its worker is lost."""

    run: RunDir
    spec: RunSpec
    state: RunState
    status: Status
    notes: Notes = NOTHING

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def live(self) -> bool:
        """Whether a worker has it."""
        return self.status in LIVE

    @property
    def share(self) -> float | None:
        """How much is done, from 0 to 1; None when nobody knows."""
        return min(1.0, self.state.step / self.state.total) if self.state.total > 0 else None

    def digest(self, role: str) -> str:
        """The digest of the parent in `role`, or nothing."""
        parent = self.spec.parents.get(role)
        return parent.digest if parent else ""

    def matches(self, text: str) -> bool:
        """Whether every word of `text` is in the run's name, stage, status, group, note or the name of its dataset.

        Runs that are put away match only a text with the word archived.
        """
        spec, dataset = self.spec, self.spec.parents.get("dataset")
        said = [self.notes.note, *(name for name in ("bookmarked", "archived") if getattr(self.notes, name))]
        places = (spec.name, spec.stage, self.status, spec.group, dataset.name if dataset else "", *said)
        told, words = "\n".join(places).casefold(), text.casefold().split()
        return all(word in told for word in words) and (not self.notes.archived or "archived" in words)


class Board:
    """All runs of a workspace. `look` is cheap: specs never change, and states are read when their file changed."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._specs: dict[str, RunSpec] = {}
        self._states: dict[str, tuple[tuple[int, int], RunState]] = {}
        self._notes: dict[str, tuple[tuple[int, int], Notes]] = {}
        self._lock = threading.Lock()

    def look(self) -> list[Entry]:
        """The runs as they are now, the newest first. Runs that cannot be read are left out."""
        with self._lock:
            runs = list_runs(self._workspace)
            present = {run.id for run in runs}
            for cache in (self._specs, self._states, self._notes):
                for gone in cache.keys() - present:
                    del cache[gone]
            return [entry for run in runs if (entry := self._entry(run)) is not None]

    def _entry(self, run: RunDir) -> Entry | None:
        try:
            spec = self._specs.get(run.id) or self._specs.setdefault(run.id, run.spec())
            status = (run.path / "state.json").stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            known = self._states.get(run.id)
            state = known[1] if known and known[0] == stamp else run.state()
            self._states[run.id] = (stamp, state)
            return Entry(run, spec, state, run.status(state), self._said(run))
        except (UserError, OSError):
            return None

    def _said(self, run: RunDir) -> Notes:
        """What people say about the run. A file that cannot be read hides nothing."""
        try:
            status = notes_path(run).stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            known = self._notes.get(run.id)
            notes = known[1] if known and known[0] == stamp else read_notes(run)
        except FileNotFoundError:
            return NOTHING
        except UserError as error:
            return Notes(note=str(error))
        self._notes[run.id] = (stamp, notes)
        return notes
