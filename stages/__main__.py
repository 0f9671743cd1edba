"""The worker: `python -m stages RUN_DIR` does the work that the run's spec.json asks for."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
import time
import traceback
from pathlib import Path

from stages.run import Run, Stopped
from stages.store.errors import UserError
from stages.store.notes import read_notes
from stages.store.queue import Ticket
from stages.store.rundir import RunDir
from stages.store.specs import ON_DEVICE, spec_of
from stages.training.devices import choose_device, confine_to, spare_busy_cores

HEARTBEAT = 15.0
"""Seconds after which a silent worker writes its state again; see stages.store.rundir.HEARTBEAT_OLD."""

QUEUE_POLL, QUEUE_POLL_FAR = 0.2, 2.0
"""Seconds between looks at the device queue: of the run that is next, and at most of those behind it. Each look costs
as much as there are runs in the queue."""


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or not Path(arguments[0]).is_absolute():
        print("usage: python -m stages ABSOLUTE_RUN_DIR", file=sys.stderr)
        return 2
    try:
        run = Run(Path(arguments[0]))
        hold_lock(run)
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
        return record(run, error, 1)
    return 0


def attempt(run: Run) -> None:
    """Wait for the device and do the stage's work, to its end or until it is asked to stop."""
    ticket: Ticket | None = None
    try:
        spec_of(run.spec.stage)
        if run.spec.stage in ON_DEVICE:
            ticket = wait_for_device(run)
        run.set_status("running", phase="starting", result={})
        run.event("started", pid=os.getpid())
        result = importlib.import_module(f"stages.{run.spec.stage}").run(run)
        run.set_status("finished", result=result, phase="", ended=time.time(), eta=None)
        run.event("finished")
    except Stopped as stopped:
        run.event(stopped.status, **({"message": stopped.why} if stopped.why else {}))
        run.set_status(stopped.status, phase=stopped.why, ended=time.time(), eta=None)
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
    if passed is not None:
        os.set_inheritable(int(passed), False)
    elif run.dir.acquire() is None:
        raise UserError(f"{run.dir.id} is at work already.", "Only one worker may hold a run.")


def wait_for_device(run: Run) -> Ticket:
    """Stand in the queue of the run's device until it is free. torch is not imported before."""
    device = choose_device(str(run.spec.settings.get("device", "auto")))
    width = int(os.environ.get("WORKBENCH_CPU_WIDTH", "1")) if device.kind == "cpu" else 1
    ticket = Ticket(device.queue, run.dir.id, priority=priority_of(run.dir), width=width)
    run.set_status("queued", device=device.queue)
    try:
        while not ticket.ready():
            ticket.set_priority(priority_of(run.dir))
            ahead = ticket.ahead()
            run.report(run.state.step, run.state.total, phase=waiting(run, device.name, ahead))
            if run.requests.ending:
                raise Stopped(run.requests.ending)
            time.sleep(min(QUEUE_POLL * max(1, len(ahead)), QUEUE_POLL_FAR))
    except BaseException:
        ticket.release()
        raise
    confine_to(device)
    spare_busy_cores()
    return ticket


def priority_of(run: RunDir) -> int:
    """How urgent people say the run is; 0 where nothing that can be read is said."""
    try:
        return read_notes(run).priority
    except UserError:
        return 0


def waiting(run: Run, device: str, ahead: list[str]) -> str:
    """What the run waits for: the device, and by name the runs before it, as far as they are of this workspace."""
    names = []
    for id_ in ahead[-2:]:
        with contextlib.suppress(UserError):
            names.append(RunDir(run.workspace.runs / id_).spec().name)
    told = f", behind {' and '.join(names)}" if names else ""
    return f"waiting for {device}{told}" + (f" ({len(ahead)} ahead)" if len(ahead) > len(names) else "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
