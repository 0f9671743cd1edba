"""A run is a directory: all that passes between the app and a worker.

spec.json      written once                  metrics.jsonl  append-only, a row per logged step
state.json     replaced atomically           events.jsonl   append-only
lock           held for the worker's life    samples.jsonl  append-only
lock.<rank>    the same, of one of several processes
log.txt        stdout and stderr             control/       requests, renamed in
checkpoints/step-<n>/
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from stages.store.errors import UNREADABLE, UserError
from stages.store.files import TEMPORARY, append_line, disk_errors, write_atomic
from stages.store.locks import is_locked, try_lock
from stages.store.names import nearest
from stages.store.specs import TRAINING
from stages.store.workspace import Workspace

Status = Literal["queued", "running", "paused", "finished", "stopped", "failed", "lost"]
RESUMABLE: tuple[Status, ...] = ("paused", "stopped", "failed", "lost")

HEARTBEAT_OLD = 60.0
"""Seconds after which a silent run on another host counts as lost."""


STRAY_AGE = 3_600.0
"""Seconds after which a run's folder without its final name is nobody's."""


class Parent(msgspec.Struct, frozen=True):
    """What a run was made from, pinned by digest."""

    name: str
    digest: str = ""

    def at_home(self, root: Path) -> Parent:
        """The same in a workspace that was moved or copied to `root`: a folder in it is named where it lies now.

        Folders of runs have names that no other run has, so the workspace's own comes first; a model of the workspace
        takes the place of one that is gone.
        """
        path = Path(self.name)
        if not path.is_absolute() or path.is_relative_to(root):
            return self
        kind = "runs" if "runs" in path.parts else "models"
        if kind not in path.parts or (kind == "models" and path.exists()):
            return self
        last = len(path.parts) - 1 - path.parts[::-1].index(kind)
        here = root.joinpath(*path.parts[last:])
        return Parent(str(here), self.digest) if here.exists() else self


class RunSpec(msgspec.Struct, kw_only=True, frozen=True):
    """What was asked for. Written once, by the launcher."""

    stage: str
    name: str
    settings: dict[str, Any]
    """Every setting of the stage's spec, resolved."""
    parents: dict[str, Parent] = {}
    """By role: dataset, tokenizer, checkpoint."""
    seed: int = 0
    threads: int = 0
    versions: dict[str, str] = {}
    host: str = ""
    git_commit: str | None = None
    group: str = ""
    """The sweep or scaling study that the run is part of; see `stages.store.groups`."""
    created: float = 0.0
    """Seconds since the epoch, UTC."""
    schema: int = 1


class RunError(msgspec.Struct, frozen=True):
    """Why a run ended badly. `kind` is the exception's class, `message` and `hint` are for people."""

    kind: str
    message: str
    hint: str = ""


class Holder(msgspec.Struct, frozen=True):
    """Which process holds a rank's lock."""

    pid: int
    host: str


class RunState(msgspec.Struct, kw_only=True):
    """Where a run stands. Replaced atomically by the worker; `status` is what it says, not what is true."""

    status: Status = "queued"
    step: int = 0
    total: int = 0
    unit: str = "steps"
    phase: str = ""
    """What it is doing, in a few words, when it is not stepping."""
    rate: float | None = None
    """Units a second."""
    eta: float | None = None
    """Seconds to go."""
    last_checkpoint: str | None = None
    heartbeat: float = 0.0
    started: float | None = None
    ended: float | None = None
    pid: int | None = None
    pid_start: float | None = None
    boot_id: str = ""
    host: str = ""
    device: str = ""
    error: RunError | None = None
    result: dict[str, Any] = {}
    """The stage's outcome: what it made, and its closing figures."""


class RunDir:
    """One run on disk. Cheap to make; every property reads the disk anew."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"RunDir({self.path.name})"

    @property
    def id(self) -> str:
        """The folder's name, unique in the workspace."""
        return self.path.name

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def samples(self) -> Path:
        return self.path / "samples.jsonl"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def control(self) -> Path:
        return self.path / "control"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    def spec(self) -> RunSpec:
        """What was asked for; UserError when the file cannot be read. Parents are named where they lie now."""
        spec = self._read("spec.json", RunSpec)
        parents = {role: parent.at_home(self.path.parent.parent) for role, parent in spec.parents.items()}
        return spec if parents == spec.parents else msgspec.structs.replace(spec, parents=parents)

    def state(self) -> RunState:
        """What the worker last wrote."""
        return self._read("state.json", RunState)

    def write_state(self, state: RunState, *, durable: bool = False) -> None:
        """Replace state.json at once; `durable`: return only when it is on the disk."""
        write_atomic(self.path / "state.json", msgspec.json.encode(state), durable=durable)

    def alive(self) -> bool:
        """Whether a worker holds the run's lock, or one of several its own."""
        return any(is_locked(lock) for lock in self.path.glob("lock*"))

    def status(self, state: RunState | None = None) -> Status:
        """The truth: a run that says it is at work while nobody holds its lock is lost."""
        state = state or self.state()
        if state.status not in ("queued", "running"):
            return state.status
        if state.host and state.host != socket.gethostname():
            return "lost" if time.time() - state.heartbeat > HEARTBEAT_OLD else state.status
        return state.status if self.alive() else "lost"

    def acquire(self) -> int | None:
        """Take the run's lock; the descriptor that holds it, or None when other processes have it.

        UserError when the run is gone, or lies where nothing can be written.
        """
        with self.there(), disk_errors(self.path):
            descriptor = try_lock(self.lock)
        if descriptor is not None and any(is_locked(lock) for lock in self.rank_locks()):
            os.close(descriptor)
            return None
        return descriptor

    @contextlib.contextmanager
    def held(self, title: str, hint: str) -> Iterator[None]:
        """Hold the run's lock meanwhile, so that no worker begins; UserError in these words while one is at work."""
        descriptor = self.acquire()
        if descriptor is None:
            raise UserError(title, hint)
        try:
            yield
        finally:
            os.close(descriptor)

    def rank_lock(self, rank: int) -> Path:
        """The lock of one of several processes that train together; what it holds is that process's `Holder`."""
        return self.path / f"lock.{rank}"

    def rank_locks(self) -> list[Path]:
        """Those of all processes that the run has ever had."""
        return list(self.path.glob("lock.*"))

    def rank_holders(self) -> list[Holder]:
        """The processes that hold those locks."""
        holders = []
        for lock in self.rank_locks():
            with contextlib.suppress(OSError, msgspec.DecodeError):
                if is_locked(lock):
                    holders.append(msgspec.json.decode(lock.read_bytes(), type=Holder))
        return holders

    def rank_failure(self, rank: int) -> Path:
        """Why one of several processes ended badly, left for who started it."""
        return self.path / f"failure.{rank}.json"

    def request(self, verb: str, values: dict[str, Any] | None = None) -> None:
        """Put a request where the worker looks: stop, pause, checkpoint, or set with values such as {"lr": 1e-4}."""
        self.control.mkdir(exist_ok=True)
        name = f"{time.time_ns():020d}-{verb}.json"
        write_atomic(self.control / name, msgspec.json.encode(values or {}))

    def append_event(self, kind: str, **values: Any) -> None:
        """Add a row to events.jsonl, with the time."""
        append_line(self.events, msgspec.json.encode({"event": kind, "time": time.time(), **values}))

    @contextlib.contextmanager
    def there(self) -> Iterator[None]:
        """A block that writes into the run: UserError when the run was deleted meanwhile."""
        try:
            yield
        except FileNotFoundError as error:
            raise UserError(f"The run {self.id} is gone.", "`workbench bin` lists what was deleted.") from error

    def _read(self, name: str, kind: type[Any]) -> Any:
        path = self.path / name
        try:
            return msgspec.json.decode(path.read_bytes(), type=kind)
        except FileNotFoundError as error:
            raise UserError(f"{self.id} is not a complete run: it has no {name}.") from error
        except UNREADABLE as error:
            raise UserError(f"{path} cannot be read: {error}.", "The run's other files are untouched.") from error


def create_run(workspace: Workspace, spec: RunSpec) -> RunDir:
    """Make the directory of a new run, complete with spec and state, in one rename."""
    stamp = datetime.datetime.fromtimestamp(spec.created or time.time(), datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    ids = (f"{stamp}-{spec.stage}-{secrets.token_hex(2)}" for _ in itertools.count())
    final = next(path for path in (workspace.runs / id_ for id_ in ids) if not path.exists())
    temporary = workspace.runs / f"{TEMPORARY}{final.name}"
    _clear_strays(workspace.runs)
    try:
        with disk_errors(workspace.runs):
            for folder in (temporary, temporary / "control", temporary / "checkpoints"):
                folder.mkdir()
            write_atomic(temporary / "spec.json", msgspec.json.format(msgspec.json.encode(spec), indent=2))
            RunDir(temporary).write_state(RunState(host=socket.gethostname(), heartbeat=time.time()))
            (temporary / "log.txt").touch()
            temporary.rename(final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return RunDir(final)


def _clear_strays(runs: Path) -> None:
    """Delete what a killed launch or deletion left. One at work is never this old."""
    for path in runs.glob(f"{TEMPORARY}*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > STRAY_AGE:
                shutil.rmtree(path, ignore_errors=True)


def list_runs(workspace: Workspace) -> list[RunDir]:
    """All runs, the newest first."""
    if not workspace.runs.is_dir():
        return []
    names = [path.name for path in os.scandir(workspace.runs) if not path.name.startswith(".") and path.is_dir()]
    return [RunDir(workspace.runs / name) for name in sorted(names, reverse=True)]


def find_run(workspace: Workspace, name: str) -> RunDir:
    """The run with this id, else the newest with this name, training before others; UserError naming the nearest."""
    names: dict[str, RunDir] = {}
    others: dict[str, RunDir] = {}
    for run in list_runs(workspace):
        if run.id == name:
            return run
        for spec in _readable_spec(run):
            (names if spec.stage in TRAINING else others).setdefault(spec.name, run)
    names = others | names
    if name in names:
        return names[name]
    raise UserError(f"There is no run {name!r}.", nearest(name, names, "train STAGE --data DATASET"))


def _readable_spec(run: RunDir) -> Iterator[RunSpec]:
    try:
        yield run.spec()
    except UserError:
        return


def boot_id() -> str:
    """Changes with every start of the machine; empty where the system does not tell."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else ""
