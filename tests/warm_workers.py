"""Workers that need not import torch: forks of a process that has, in the place of `python -P -m stages RUN_DIR`.

Each is a process of its own all the same, in a session of its own, with the run's lock, its log and the environment
that the launcher gave, and may be killed. Two processes are forked from in turn: who goes on with a run was born of
another process than who began it, with other seeds of Python's hashes and at other addresses.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import itertools
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from stages.store.rundir import RunDir
from stages.store.workspace import installation_root
from workbench import runs

ADVANCE = ("numpy", "torch", "torch._dynamo", "pyarrow.parquet", "tokenizers", "jinja2", "safetensors.torch")
"""What is imported before forking, beside the stages. The optimiser of torch imports torch._dynamo."""
READ_AT_IMPORT = ("OMP_", "MKL_", "TRITON_", "TORCH_", "CUDA_", "PYTHONHASHSEED", "WORKBENCH_GPUS")
"""Variables that must be as they were when the stages were imported; where they are not, a worker starts afresh."""
PROCESSES = 2


class WarmWorkers:
    """Starts workers as workbench.runs.spawn does."""

    def __init__(self) -> None:
        self._doors: list[socket.socket] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._turn = itertools.count()
        self._one_at_a_time = threading.Lock()

    def serves(self, environment: Mapping[str, str]) -> bool:
        """Whether a worker with this environment may be forked."""
        names = {name for name in environment.keys() | os.environ.keys() if name.startswith(READ_AT_IMPORT)}
        return all(environment.get(name) == self._environment.get(name) for name in names)

    def spawn(self, run: RunDir, environment: Mapping[str, str], lock: int) -> None:
        with self._one_at_a_time, run.log.open("ab") as log:
            turn = next(self._turn) % PROCESSES
            if turn == len(self._doors):
                self._begin()
            told = json.dumps({"run": str(run.path), "environment": dict(environment)}).encode()
            socket.send_fds(self._doors[turn], [len(told).to_bytes(8)], [log.fileno(), lock])
            self._doors[turn].sendall(told)

    @property
    def _environment(self) -> dict[str, str]:
        root = str(installation_root())
        return {**os.environ, "PYTHONPATH": root, "PYTHONSAFEPATH": "1"}

    def _begin(self) -> None:
        """Start one more of the processes that are forked from. It ends when this one does."""
        ours, its = socket.socketpair()
        with its:
            command = [sys.executable, "-P", "-m", "tests.warm_workers", str(its.fileno())]
            self._processes.append(
                subprocess.Popen(
                    command,
                    cwd=installation_root(),
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,
                    pass_fds=[its.fileno()],
                )
            )
        self._doors.append(ours)

    def close(self) -> None:
        for door in self._doors:
            door.close()
        for process in self._processes:
            process.wait(60)


@contextlib.contextmanager
def warm_workers() -> Iterator[None]:
    """While this lasts, runs that this process launches are done by forks."""
    warm, cold = WarmWorkers(), runs.spawn

    def spawn(run: RunDir, environment: Mapping[str, str], lock: int) -> None:
        (warm.spawn if warm.serves(environment) else cold)(run, environment, lock)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "spawn", spawn)
        yield
    warm.close()


def serve(door: socket.socket) -> None:
    """Fork a worker for each request, until the other end is closed."""
    stages = importlib.import_module("stages")
    names = [f"stages.{one.name}" for one in pkgutil.iter_modules(stages.__path__) if not one.ispkg]
    for name in (*ADVANCE, *names):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, reap)
    while True:
        size, descriptors, _, _ = socket.recv_fds(door, 8, 2)
        if not size:
            return
        told = b""
        while len(told) < int.from_bytes(size):
            told += door.recv(int.from_bytes(size) - len(told))
        if os.fork() == 0:
            door.close()
            become_worker(json.loads(told), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def reap(*_: object) -> None:
    """Let ended workers go."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def become_worker(told: dict[str, Any], log: int, lock: int) -> None:
    """Be what `python -P -m stages RUN_DIR` is when its imports are done."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        for descriptor in (1, 2):
            os.dup2(log, descriptor)
        os.close(log)
        os.chdir(installation_root())
        os.environ.clear()
        os.environ.update(told["environment"], WORKBENCH_LOCK_FD=str(lock))
        time.tzset()
        if moment := os.environ.get("WORKBENCH_TEST_MOMENT"):
            importlib.import_module("tests.stages.moments").await_moment(moment)
        sys.argv = [str(Path("stages", "__main__.py")), told["run"]]
        code = importlib.import_module("stages.__main__").main(sys.argv[1:])
    except BaseException:  # noqa: BLE001 - as at the end of any program
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
