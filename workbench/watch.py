"""Looking at runs on disk from a thread: all of them for the list, and one closely for its screen."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, NamedTuple

from stages.store.errors import UserError
from stages.store.notes import NOTHING, Notes, notes_path, read_notes
from stages.store.rundir import RunDir, RunSpec, RunState, Status, list_runs
from stages.store.workspace import Workspace
from workbench.follow import RowFollower, TextFollower
from workbench.plots.curves import Curves, Track

SAMPLES = 200
"""Samples that are kept, the newest."""

LIVE: tuple[Status, ...] = ("queued", "running")


class Entry(NamedTuple):
    """One run as the list shows it. `status` is the truth: a run without its worker is lost."""

    run: RunDir
    spec: RunSpec
    state: RunState
    status: Status
    notes: Notes = NOTHING

    @property
    def live(self) -> bool:
        return self.status in LIVE

    @property
    def share(self) -> float | None:
        """How much is done, from 0 to 1; None when nobody knows."""
        return min(1.0, self.state.step / self.state.total) if self.state.total > 0 else None

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


class Watch:
    """One run closely: curves, samples, log and state. `catch_up` runs in a thread, one call at a time."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.spec = run.spec()
        self.track = Track.of(run)
        self.state = run.state()
        self.status: Status = run.status(self.state)
        self.samples: deque[dict[str, Any]] = deque(maxlen=SAMPLES)
        self.samples_version = 0
        self._samples = RowFollower(run.samples)
        self._log = TextFollower(run.log)
        self._text: list[str] = []
        self._cleared = False
        self._lock = threading.Lock()
        self._busy = threading.Lock()

    @property
    def curves(self) -> Curves:
        """All of the run's curves."""
        return self.track.whole

    @property
    def entry(self) -> Entry:
        return Entry(self.run, self.spec, self.state, self.status)

    def catch_up(self) -> None:
        """Read all that is new. Returns at once when another thread is at it; raises UserError when the run is gone."""
        if not self._busy.acquire(blocking=False):
            return
        try:
            state = self.run.state()
            self.state, self.status = state, self.run.status(state)
            self.track.catch_up()
            while self._more_samples():
                pass
            self._more_log()
        finally:
            self._busy.release()

    def take_log(self) -> tuple[bool, str]:
        """(whether the text before is to be forgotten, text that came since the last call)."""
        with self._lock:
            taken = self._cleared, "".join(self._text)
            self._cleared, self._text = False, []
            return taken

    def recent_samples(self, count: int) -> list[dict[str, Any]]:
        """The newest samples, the newest first."""
        with self._lock:
            return list(self.samples)[: -count - 1 : -1]

    def _more_samples(self) -> bool:
        chunk = self._samples.read()
        if chunk.restarted or chunk.rewind_to is not None or chunk.rows:
            with self._lock:
                kept = [] if chunk.restarted else list(self.samples)
                if chunk.rewind_to is not None:
                    kept = [row for row in kept if not _beyond(row, chunk.rewind_to)]
                self.samples = deque([*kept, *chunk.rows], maxlen=SAMPLES)
                self.samples_version += 1
        return chunk.more

    def _more_log(self) -> None:
        restarted, text = self._log.read()
        with self._lock:
            if restarted:
                self._cleared, self._text = True, []
            if text:
                self._text.append(text)


def _beyond(row: dict[str, Any], step: float) -> bool:
    at = row.get("step")
    return isinstance(at, int | float) and at > step
