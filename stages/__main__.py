"""The worker: `python -m stages RUN_DIR` does the work that the run's spec.json asks for."""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import sys
import threading
import time
import traceback
from pathlib import Path

import msgspec

from stages.run import Run, Stopped
from stages.store.errors import UserError
from stages.store.locks import is_locked, try_lock
from stages.store.notes import read_notes
from stages.store.queue import Tickets, folder_of
from stages.store.rundir import Holder, RunDir
from stages.store.specs import ON_DEVICE, spec_of
from stages.store.specs.parallel import refuse_shares
from stages.training.devices import CPU, choose_devices, confine_to, spare_busy_cores
from stages.training.ranks import ALONE, LostProcess, my_rank
from stages.training.supervisor import supervise

HEARTBEAT = 15.0
"""Seconds after which a silent worker writes its state again; see stages.store.rundir.HEARTBEAT_OLD."""

LAST_BREATH = 2.0
"""Seconds in which a process whose connection broke gives up its lock."""

QUEUE_POLL, QUEUE_POLL_FAR = 0.2, 2.0
"""Seconds between looks at the device queue: of the run that is next, and at most of those behind it. Each look costs
as much as there are runs in the queue."""


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or not Path(arguments[0]).is_absolute():
        print("usage: python -m stages ABSOLUTE_RUN_DIR", file=sys.stderr)
        return 2
    try:
        run = Run(Path(arguments[0]), my_rank())
        hold_lock(run)
        if run.me is ALONE:
            run.tidy()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    run.listen_for_sigterm()
    threading.Thread(target=keep_beating, args=(run,), daemon=True).start()
    return work(run)


def keep_beating(run: Run) -> None:
    """Show that the worker lives through what takes long between two reports: a validation, a large checkpoint."""
    while True:
        time.sleep(HEARTBEAT)
        run.beat(HEARTBEAT)


def work(run: Run) -> int:
    """Do the run's work, and record how it ended."""
    try:
        attempt(run)
    except UserError as error:
        say(f"error: {error}")
        return record(run, error, error.exit_code)
    except Exception as error:  # noqa: BLE001 - the boundary of the process: recorded for people, kept in the log
        say(traceback.format_exc())
        return record(run, error if run.me is ALONE else cause(run, error), 1)
    return 0


def cause(run: Run, error: Exception) -> Exception:
    """The error, or, where another process of the run is gone and the connection broke, that."""
    locks = [run.dir.rank_lock(rank) for rank in range(run.me.size) if rank != run.me.rank]
    deadline = time.monotonic() + LAST_BREATH
    while isinstance(error, RuntimeError) and time.monotonic() < deadline:
        if not all(map(is_locked, locks)):
            return LostProcess("Another process of the run is gone.")
        time.sleep(0.05)
    return error


def attempt(run: Run) -> None:
    """Wait for the device and do the stage's work, to its end or until it is asked to stop."""
    ticket: Tickets | None = None
    try:
        spec_of(run.spec.stage)
        if run.me is not ALONE:
            if run.spec.settings.get("device") == "cpu":
                confine_to()
        elif (processes := processes_of(run)) > 1:
            begin_several(run, processes)
            return
        elif run.spec.stage in ON_DEVICE:
            ticket = wait_for_device(run, 1)
        run.set_status("running", phase="starting", result={})
        run.event("started", pid=os.getpid())
        result = importlib.import_module(f"stages.{run.spec.stage}").run(run)
        if run.me is not ALONE:
            importlib.import_module("stages.training.distributed").leave()
        run.set_status("finished", result=result, phase="", ended=time.time(), eta=None)
        run.event("finished")
    except Stopped as stopped:
        run.event(stopped.status, **({"message": stopped.why} if stopped.why else {}))
        run.set_status(stopped.status, phase=stopped.why, ended=time.time(), eta=None)
    finally:
        if ticket is not None:
            ticket.release()


def processes_of(run: Run) -> int:
    """How many processes the run is to have: as it was resumed with, else as its settings say."""
    return int(os.environ.get("WORKBENCH_GPUS") or run.spec.settings.get("gpus") or 1)


def begin_several(run: Run, processes: int) -> None:
    """Do the work in several processes, on this machine's devices or on those that [launch] finds."""
    refuse_shares(run.spec.settings, processes)
    template = msgspec.json.decode(os.environ.get("WORKBENCH_LAUNCH") or "[]", type=list[str])
    ticket = None if template else wait_for_device(run, processes)
    try:
        where = f"by {template[0]}" if template else "on the CPU, with gloo" if run.state.device == CPU.queue else ""
        device = "" if template else run.state.device
        run.set_status("queued", phase=f"starting {processes} processes {where}".strip(), device=device)
        supervise(run, processes, template)
    finally:
        if ticket is not None:
            ticket.release()


def record(run: Run, error: Exception, exit_code: int) -> int:
    """Record a failure. Where the disk does not take even that, the free lock tells that the run is lost."""
    try:
        run.fail(error)
    except (UserError, OSError) as refused:
        say(f"error: this could not be recorded: {refused}")
    return exit_code


def say(text: str) -> None:
    """Write to the log, which may stand on the disk that is full."""
    with contextlib.suppress(OSError):
        print(text, flush=True)


def hold_lock(run: Run) -> None:
    """Keep the lock that the launcher passed, or take it when the worker was started by hand."""
    passed = os.environ.pop("WORKBENCH_LOCK_FD", None)
    if run.me is not ALONE:
        hold_rank_lock(run.dir, run.me.rank)
    elif passed is not None:
        os.set_inheritable(int(passed), False)
    elif run.dir.acquire() is None:
        raise UserError(f"{run.dir.id} is at work already.", "Only one worker may hold a run.")


def hold_rank_lock(run: RunDir, rank: int) -> None:
    """Keep the lock of one of several processes for life, with this process's name in it."""
    descriptor = try_lock(run.rank_lock(rank))
    if descriptor is None:
        raise UserError(f"Process {rank} of {run.id} is at work already.")
    os.truncate(descriptor, 0)
    os.write(descriptor, msgspec.json.encode(Holder(os.getpid(), socket.gethostname())))


def wait_for_device(run: Run, processes: int) -> Tickets:
    """Stand in the queues of the run's devices until they are free. torch is not imported before."""
    devices = choose_devices(str(run.spec.settings.get("device", "auto")), processes)
    queues = [device.queue for device in devices]
    width = int(os.environ.get("WORKBENCH_CPU_WIDTH", "1")) if devices == [CPU] else 1
    ticket = Tickets(queues, run.dir.id, priority=priority_of(run.dir), width=width, run=run.dir.path)
    run.set_status("queued", device=",".join(queues))
    names = " and ".join(device.name for device in devices)
    try:
        while not ticket.ready():
            ticket.set_priority(priority_of(run.dir))
            ahead = ticket.ahead()
            run.report(run.state.step, run.state.total, phase=waiting(run, names, ahead))
            if run.requests.ending:
                raise Stopped(run.requests.ending)
            time.sleep(min(QUEUE_POLL * max(1, len(ahead)), QUEUE_POLL_FAR))
    except BaseException:
        ticket.release()
        raise
    confine_to(*devices)
    spare_busy_cores()
    return ticket


def priority_of(run: RunDir) -> int:
    """How urgent people say the run is; 0 where nothing that can be read is said."""
    try:
        return read_notes(run).priority
    except UserError:
        return 0


def waiting(run: Run, device: str, ahead: list[str]) -> str:
    """What the run waits for: the device, and by name the runs before it; of another workspace, in which."""
    names = []
    for id_ in ahead[-2:]:
        folder = folder_of(id_) or run.workspace.runs / id_
        with contextlib.suppress(UserError):
            elsewhere = "" if folder.parent == run.workspace.runs else f" in {folder.parent.parent}"
            names.append(f"{RunDir(folder).spec().name}{elsewhere}")
    told = f", behind {' and '.join(names)}" if names else ""
    return f"waiting for {device}{told}" + (f" ({len(ahead)} ahead)" if len(ahead) > len(names) else "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
