"""Starts the processes of a run that trains on several GPUs, waits for them, and records how they ended. No torch.

One process, which holds the run's lock, waits for the devices, and starts `torchrun`, or what [launch] of the settings
names, around the worker command. Each of the processes holds a lock of its own; the first writes the run's files. When
one dies, the others are ended, and the run fails with a sentence about the one that was first.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec
import psutil

from stages.run import Run
from stages.store.errors import UserError, WorkFailed
from stages.store.locks import is_locked
from stages.store.rundir import RunError
from stages.store.workspace import installation_root
from stages.training.ranks import ATTEMPT, PROCESSES, LostProcess

POLL = 0.1
"""Seconds between looks at the processes."""
PATIENCE = 45.0
"""Seconds that the other processes have to end when one has; torchrun itself gives them 30."""
DEFAULT = ("{torchrun}",)
GONE_HINT = "Resume the run: it goes on from its last checkpoint."


def supervise(run: Run, processes: int, template: Sequence[str]) -> None:
    """Start the processes, wait until all have ended, and see that none is left. Raises WorkFailed when they failed.

    The run's files belong to the first of them meanwhile.
    """
    attempt = f"{os.getpid()}-{time.time_ns()}"
    for left in (*run.dir.path.glob("failure.*.json"), *run.dir.path.glob("rendezvous-*.json")):
        left.unlink(missing_ok=True)
    environment = _environment(run, processes, attempt)
    command = wrapped(template or DEFAULT, worker_command(run), environment, processes)
    print("starting:", shlex.join(command), flush=True)
    run.mute()
    with _sigterm_as_request(run):
        try:
            child = subprocess.Popen(command, cwd=installation_root(), env={**os.environ, **environment})
        except OSError as error:
            run.unmute()
            raise UserError(
                f"{command[0]!r} of [launch] cannot be started: {(error.strerror or 'it fails').lower()}."
            ) from error
        first = _wait(run, child, processes)
        _end_stragglers(run)
    (run.dir.path / f"rendezvous-{attempt}.json").unlink(missing_ok=True)
    run.unmute()
    if run.state.status in ("queued", "running"):
        raise _reason(run, processes, child.returncode, first)


def worker_command(run: Run) -> list[str]:
    """The command of every process."""
    return [sys.executable, "-P", "-m", "stages", str(run.dir.path)]


def wrapped(
    template: Sequence[str], worker: Sequence[str], environment: Mapping[str, str], processes: int
) -> list[str]:
    """The words of a [launch] command with {worker}, {torchrun} and {gpus} filled in.

    {worker} is the command of one process and {torchrun} the one that starts all of them on one machine; both set what
    they need of the environment, which not every wrapper hands on. A word that is nothing else becomes as many words as
    they have; inside a longer one, as for ssh, they are quoted for a shell. UserError where neither is named.
    """
    settings = ["/usr/bin/env", *(f"{name}={value}" for name, value in environment.items())]
    torchrun = [sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", "--no-python", "--max-restarts=0"]
    torchrun += ["--nnodes=1", f"--nproc-per-node={processes}"]
    known = {"{worker}": [*settings, *worker], "{torchrun}": [*settings, *torchrun, *worker]}
    if not any(name in word for word in template for name in known):
        raise UserError("[launch] command starts no worker.", "Write {torchrun} or {worker} where it belongs.")
    words: list[str] = []
    for word in template:
        if word in known:
            words += known[word]
            continue
        for name, command in known.items():
            word = word.replace(name, shlex.join(command))
        words.append(word.replace("{gpus}", str(processes)))
    return words


def _environment(run: Run, processes: int, attempt: str) -> dict[str, str]:
    """What every process finds in its environment, on whichever machine."""
    local = {"OMP_NUM_THREADS": str(threads_each(run, processes)), "OMP_WAIT_POLICY": "PASSIVE"}
    if "CUDA_VISIBLE_DEVICES" in os.environ and run.state.device:
        local["CUDA_VISIBLE_DEVICES"] = os.environ["CUDA_VISIBLE_DEVICES"]
    root = str(installation_root())
    return local | {"PYTHONPATH": root, "PYTHONSAFEPATH": "1", PROCESSES: str(processes), ATTEMPT: attempt}


def threads_each(run: Run, processes: int) -> int:
    """The share of the run's threads that each process has."""
    return max(1, run.spec.threads // processes)


@contextlib.contextmanager
def _sigterm_as_request(run: Run) -> Iterator[None]:
    """Hand SIGTERM on where the first process looks: it saves a checkpoint, and all stop at the same step."""
    before = signal.signal(signal.SIGTERM, lambda *_: run.dir.request("stop"))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _wait(run: Run, child: subprocess.Popen[bytes], processes: int) -> set[int]:
    """Wait for the processes to end; which were the first. Ends the others when these ended long before them."""
    begun: set[int] = set()
    first: set[int] = set()
    ended: float | None = None
    while child.poll() is None:
        held = {rank for rank in range(processes) if is_locked(run.dir.rank_lock(rank))}
        begun |= held
        if ended is None and begun - held:
            first, ended = begun - held, time.monotonic()
        if ended is not None and time.monotonic() - ended > PATIENCE:
            _kill_tree(child)
            break
        time.sleep(POLL)
    return first


def _kill_tree(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in (*psutil.Process(child.pid).children(recursive=True), psutil.Process(child.pid)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    child.wait()


def _end_stragglers(run: Run) -> None:
    """End processes of this machine that outlived what had started them."""
    here = socket.gethostname()
    while pids := [holder.pid for holder in run.dir.rank_holders() if holder.host == here]:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL)


def _reason(run: Run, processes: int, code: int | None, first: Iterable[int] = ()) -> UserError:
    """What to say of processes that ended without an ending; `first` were seen to end before the others."""
    failures = {
        rank: (path.stat().st_mtime_ns, msgspec.json.decode(path.read_bytes(), type=RunError))
        for rank in range(processes)
        if (path := run.dir.rank_failure(rank)).exists()
    }
    causes = sorted((when, rank) for rank, (when, error) in failures.items() if error.kind != LostProcess.__name__)
    if causes:
        error = failures[causes[0][1]][1]
        kind = UserError if error.kind == "UserError" else WorkFailed
        return kind(error.message, error.hint)
    silent = [rank for rank in range(processes) if rank not in failures]
    silent = [rank for rank in silent if rank in first] or silent
    if len(silent) == processes and not run.dir.rank_locks():
        return WorkFailed(f"None of the {processes} processes began to work (exit status {code}).", "See the log.")
    if silent and len(silent) < processes:
        which = " and ".join(map(str, silent))
        noun = "Process" if len(silent) == 1 else "Processes"
        verb = "was" if len(silent) == 1 else "were"
        return WorkFailed(f"{noun} {which} of 0 to {processes - 1} {verb} killed; the others were ended.", GONE_HINT)
    return WorkFailed(f"The {processes} processes ended together (exit status {code}).", GONE_HINT)
