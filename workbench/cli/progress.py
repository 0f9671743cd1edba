"""Waiting for a run on the command line: a line that is redrawn on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import TextIO

from stages.store.errors import UserError
from stages.store.rundir import RunDir, RunState, Status, find_run
from stages.store.workspace import Workspace
from workbench.display import displayable_line, shortened
from workbench.follow import RowFollower
from workbench.wording import summary

POLL = 0.1
"""Seconds between looks at the run."""
PLAIN_INTERVAL = 10.0
"""Seconds between plain lines."""
ENDED = ("finished", "stopped", "failed", "paused", "lost")


class Detached(KeyboardInterrupt):
    """The wait was interrupted; the run goes on."""


def wait(run: RunDir, stream: TextIO | None = None) -> RunState:
    """Show progress on `stream` (stderr) until the run ends; its last state.

    A run that failed or was lost raises UserError with its own sentence and hint. ctrl+c ends the wait, not the run.
    """
    out = stream or sys.stderr
    name = run.spec().name
    view: _Line | _Lines = _Line(out) if out.isatty() else _Lines(out)
    warnings = _Warnings(run.events)
    try:
        state, status = _follow(run, view, warnings)
    except KeyboardInterrupt as interrupt:
        view.close()
        print(f"Detached: {displayable_line(name)} goes on. {how_to_return(run)}", file=out)
        raise Detached from interrupt
    view.close()
    return _outcome(run, name, state, status)


def how_to_return(run: RunDir) -> str:
    """The commands that find a detached run again."""
    handle = handle_of(run)
    return f"`workbench runs attach {handle}` waits for it, `workbench runs stop {handle}` ends it."


def handle_of(run: RunDir) -> str:
    """What to call a run on the command line: its name, or its id when that name means another run."""
    name = run.spec().name
    return name if find_run(Workspace(run.path.parent.parent), name).id == run.id else run.id


def _follow(run: RunDir, view: _Line | _Lines, warnings: _Warnings) -> tuple[RunState, Status]:
    while True:
        state = run.state()
        status = run.status(state)
        for sentence in warnings.new():
            view.note(f"warning: {sentence}")
        view.show(summary(state, status), key=f"{status} {state.phase}")
        if status in ENDED and not run.alive():
            return state, status
        time.sleep(POLL)


def _outcome(run: RunDir, name: str, state: RunState, status: Status) -> RunState:
    if status == "failed":
        error = state.error
        message, hint = (error.message, error.hint) if error else ("It failed and left no reason.", f"See {run.log}.")
        raise UserError(message, hint, exit_code=2 if error and error.kind == "UserError" else 1)
    if status == "lost":
        handle = handle_of(run)
        raise UserError(
            f"The run {name!r} was lost: its worker died without a word.",
            f"`workbench runs logs {handle}` shows its log, `workbench runs resume {handle}` goes on with it.",
            exit_code=1,
        )
    return state


class _Line:
    """One line of a terminal, redrawn in place."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._shown = ""

    def show(self, text: str, *, key: str) -> None:
        if text != self._shown:
            width = shutil.get_terminal_size().columns - 1
            self._out.write(f"\r{shortened(text, width)}\x1b[K")
            self._out.flush()
            self._shown = text

    def note(self, text: str) -> None:
        self._out.write(f"\r\x1b[K{displayable_line(text)}\n")
        self._shown = ""

    def close(self) -> None:
        if self._shown:
            self._out.write("\n")
            self._out.flush()


class _Lines:
    """A line when something changed (`key`), and otherwise every ten seconds."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._key = ""
        self._last = 0.0

    def show(self, text: str, *, key: str) -> None:
        now = time.monotonic()
        if key != self._key or now - self._last >= PLAIN_INTERVAL:
            self.note(text)
            self._key, self._last = key, now

    def note(self, text: str) -> None:
        print(displayable_line(text), file=self._out, flush=True)

    def close(self) -> None:
        """Nothing is left open."""


class _Warnings:
    """Warnings among a run's events, each told once, from now on. What is half written is none yet."""

    def __init__(self, events: Path) -> None:
        self._events = RowFollower(events)
        while self._events.read().more:
            pass

    def new(self) -> list[str]:
        rows = self._events.read().rows
        return [str(row.get("message", "")) for row in rows if row.get("event") == "warning"]
