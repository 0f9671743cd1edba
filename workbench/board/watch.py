"""Looking closely at one run on disk, from a thread: its curves, samples, log and state."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from stages.store.rundir import RunDir, Status
from workbench.board.run_board import Entry
from workbench.follow import RowFollower, TextFollower
from workbench.plots.curves import Curves, Track

SAMPLES = 200
"""Samples that are kept, the newest."""


class Watch:
    """One run closely. `catch_up` runs in a thread, one call at a time."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.spec = run.spec()
        self.track = Track(run.metrics)
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
