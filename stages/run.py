"""A run as its worker sees it: settings in, requests in, progress and rows out."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import psutil

from stages.store import strict
from stages.store.checkpoints import MANIFEST, Checkpoint, verify
from stages.store.datasets import Dataset, find_dataset
from stages.store.errors import UserError
from stages.store.files import append_line, drop_torn_line, settle, write_atomic
from stages.store.rundir import Parent, RunDir, RunError, RunSpec, RunState, Status, boot_id
from stages.store.specs import TRAINING
from stages.store.tokenizers import Tokenizer, find_tokenizer
from stages.store.workspace import Workspace
from stages.training.ranks import ALONE, Rank

S = TypeVar("S", bound=msgspec.Struct)

STATE_INTERVAL = 0.25
"""Seconds between writes of state.json."""


class Stopped(Exception):
    """The run is to end here; `status` is what it ends as. `why`: a sentence, when it was not the user who asked."""

    def __init__(self, status: Status = "stopped", why: str = "") -> None:
        super().__init__(status)
        self.status: Status = status
        self.why = why


class Requests:
    """What the control folder and SIGTERM ask for. A flag stays up until the stage has acted on it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.stop = False
        self.pause = False
        self.checkpoint = False
        self.why = ""
        """Why the run itself asks to pause."""
        self.values: dict[str, Any] = {}
        self.rates: list[tuple[int, float]] = []
        """(step, learning rate) in order: set before a kill took those steps back, to be set there again."""

    @property
    def ending(self) -> Literal["stopped", "paused"] | None:
        """What the run is asked to end as. To stop outweighs to pause."""
        return "stopped" if self.stop else "paused" if self.pause else None

    def any(self) -> bool:
        """Whether anything is asked."""
        return bool(self.stop or self.pause or self.checkpoint or self.values or self.rates)

    def shown(self) -> dict[str, Any]:
        """All that is asked, to be handed to another process."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def take_over(self, asked: dict[str, Any]) -> None:
        """Be asked what another process has shown, and nothing else."""
        vars(self).update(asked)

    def poll(self) -> None:
        """Read and remove what has arrived; a request that cannot be read is refused by the log, not by a crash."""
        try:
            names = sorted(os.listdir(self._folder))
        except FileNotFoundError:
            return
        for name in names:
            if not name.endswith(".json"):
                continue
            path = self._folder / name
            verb = name[:-5].partition("-")[2]
            try:
                values = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                print(f"ignored the request {name}: {error}", flush=True)
                values, verb = {}, ""
            path.unlink()
            self._take(verb, values)

    def _take(self, verb: str, values: dict[str, Any]) -> None:
        if verb == "set":
            self.values.update(values)
        elif verb in ("stop", "pause", "checkpoint"):
            setattr(self, verb, True)
        elif verb == "resume":
            self.pause = False


class Run:
    """The worker's hold on its run directory. One process makes one of these.

    Of several processes that train together the first writes the run's files and reads its requests. The others are
    mute: what they say is what the first says as well. (`stages.training.distributed.agree` tells them of requests.)
    """

    def __init__(self, path: Path, me: Rank = ALONE) -> None:
        self.me = me
        self._mute = not me.leads
        self.dir = RunDir(path)
        self.spec: RunSpec = self.dir.spec()
        self.workspace = Workspace(path.parent.parent)
        self.requests = Requests(self.dir.control)
        self.state = self._first_state()
        self._written = 0.0
        self._writing = threading.Lock()
        self._rate_mark: tuple[float, int] | None = None

    def tidy(self) -> None:
        """Clear away what an earlier worker left half-written. Only the holder of the lock may do this."""
        settle(self.dir.checkpoints)
        for rows in (self.dir.metrics, self.dir.events, self.dir.samples):
            drop_torn_line(rows)

    def mute(self) -> None:
        """Write nothing from now on: the run's files are another process's."""
        self._mute = True

    def unmute(self) -> None:
        """Go on from what that process has left."""
        self.state = self.dir.state()
        self._mute = False

    def settings(self, spec: type[S]) -> S:
        """The run's settings as an instance of `spec`; UserError when an older or newer version wrote them."""
        return strict.parse(spec, self.spec.settings, str(self.dir.path / "spec.json"), "settings.")

    def has(self, role: str) -> bool:
        """Whether the run was given a parent of this role: those of some roles may be left out."""
        return role in self.spec.parents

    def dataset(self, role: str = "dataset") -> Dataset:
        """The dataset the run was launched on; UserError when it has been replaced since."""
        parent = self._parent(role)
        dataset = find_dataset(self.workspace, parent.name)
        self._refuse_replaced("dataset", parent, dataset.info.digest)
        return dataset

    def tokenizer(self) -> Tokenizer:
        """The tokenizer the run was launched with; UserError when it has been replaced since."""
        parent = self._parent("tokenizer")
        tokenizer = find_tokenizer(self.workspace, parent.name)
        self._refuse_replaced("tokenizer", parent, tokenizer.info.digest)
        return tokenizer

    def checkpoint(self, role: str = "checkpoint") -> Path:
        """The folder of a checkpoint the run was made from, verified; UserError when it is gone or another now."""
        parent = self._parent(role)
        path = Path(parent.name)
        if not (path / MANIFEST).is_file():
            raise UserError(f"The {role} {path} that this run was made from is gone.", "Start a new run.")
        self._refuse_replaced(role, parent, Checkpoint(path, 0).digest())
        verify(path)
        return path

    def listen_for_sigterm(self) -> None:
        """Treat SIGTERM as a request to stop with a checkpoint."""
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def set_status(self, status: Status, **values: Any) -> None:
        """Change the status (and other fields of the state) durably, now."""
        self.state.status = status
        for name, value in values.items():
            setattr(self.state, name, value)
        self._write(durable=True)

    def progress(
        self, step: int, total: int, *, unit: str = "steps", phase: str = "", rate: float | None = None
    ) -> None:
        """Say how far the work is, and raise Stopped when the user asked to stop: for work that keeps nothing."""
        self.report(step, total, unit=unit, phase=phase, rate=rate)
        if self.requests.ending and not self._mute:
            raise Stopped(self.requests.ending if self.spec.stage in TRAINING else "stopped")

    def report(self, step: int, total: int, *, unit: str = "steps", phase: str = "", rate: float | None = None) -> None:
        """Say how far the work is and read requests. Cheap enough for every step.

        `rate` is in units a second; left out, it is measured between calls.
        """
        now = time.time()
        if not self._mute:
            self.requests.poll()
        if (unit, phase) != (self.state.unit, self.state.phase):
            self._rate_mark, self.state.rate = None, None  # bytes encoded say nothing of steps trained
        self.state.step, self.state.total, self.state.unit, self.state.phase = step, total, unit, phase
        if now - self._written >= STATE_INTERVAL:
            self.state.rate = rate if rate is not None else self._measure(now, step)
            self.state.eta = (total - step) / self.state.rate if self.state.rate and total else None
            self._write()

    def log_metrics(self, step: int, row: dict[str, float]) -> None:
        """Append a row to metrics.jsonl."""
        if self._mute:
            return
        append_line(self.dir.metrics, msgspec.json.encode({"step": step, "time": time.time(), **row}))

    def sample(self, step: int, **values: Any) -> None:
        """Append a row to samples.jsonl."""
        if self._mute:
            return
        append_line(self.dir.samples, msgspec.json.encode({"step": step, "time": time.time(), **values}))

    def rewind(self, step: int) -> None:
        """Tell readers that rows beyond `step` no longer count."""
        for rows in (self.dir.metrics, self.dir.samples):
            if rows.exists() and not self._mute:
                append_line(rows, msgspec.json.encode({"rewind_to": step}))

    def event(self, kind: str, **values: Any) -> None:
        """Append a row to events.jsonl."""
        if not self._mute:
            self.dir.append_event(kind, **values)

    def warn(self, sentence: str) -> None:
        """A warning for people, in the events and in the log."""
        if self._mute:
            return
        print(f"warning: {sentence}", flush=True)
        self.event("warning", message=sentence)

    def tell(self, sentence: str) -> None:
        """A fact for people, in the log."""
        if not self._mute:
            print(sentence, flush=True)

    def fail(self, error: BaseException) -> None:
        """Record why the run ended badly. Raises WorkFailed when the disk takes that no more: then it reads as lost.

        One of several processes leaves its reason to `stages.training.supervisor`, which knows those of all.
        """
        if isinstance(error, UserError):
            shown = RunError(type(error).__name__, error.title, error.hint)
        else:
            shown = RunError(
                type(error).__name__, f"{type(error).__name__}: {error}"[:2_000], "The log has the whole traceback."
            )
        if self.me.size > 1:
            write_atomic(self.dir.rank_failure(self.me.rank), msgspec.json.encode(shown))
            return
        try:
            self.event("failed", message=shown.message, hint=shown.hint)
        finally:
            self.set_status("failed", error=shown, ended=time.time(), eta=None)

    def _parent(self, role: str) -> Parent:
        if role not in self.spec.parents:
            raise UserError(f"A {self.spec.stage} run needs a {role}, and none is given.")
        return self.spec.parents[role]

    def _refuse_replaced(self, role: str, parent: Parent, found: str) -> None:
        if parent.digest != found:
            raise UserError(
                f"The {role} {parent.name!r} has been replaced since this run was launched.", "Start a new run."
            )

    def _first_state(self) -> RunState:
        state = self.dir.state()
        process = psutil.Process()
        state.pid, state.pid_start, state.boot_id = process.pid, process.create_time(), boot_id()
        state.host, state.started, state.ended, state.error = socket.gethostname(), time.time(), None, None
        state.rate = state.eta = None
        return state

    def _measure(self, now: float, step: int) -> float | None:
        if self._rate_mark is None or step < self._rate_mark[1]:
            self._rate_mark = (now, step)
            return None
        then, before = self._rate_mark
        if now - then > 10.0:
            self._rate_mark = (now, step)
        return (step - before) / (now - then) if now > then and step > before else self.state.rate

    def beat(self, silence: float) -> None:
        """Write the state again if the run works and has said nothing for `silence` seconds. For another thread."""
        with self._writing, contextlib.suppress(UserError):  # a full disk is for the worker's own thread to tell
            silent = time.time() - self._written >= silence
            if self.state.status in ("queued", "running") and silent and not self._mute:
                self._written = self.state.heartbeat = time.time()
                self.dir.write_state(self.state)

    def _write(self, *, durable: bool = False) -> None:
        if self._mute:
            return
        with self._writing:
            self._written = self.state.heartbeat = time.time()
            self.dir.write_state(self.state, durable=durable)

    def _on_sigterm(self, _signal: int, _frame: object) -> None:
        if self.me.leads:
            self.requests.stop = True
