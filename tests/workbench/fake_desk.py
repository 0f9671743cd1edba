"""The desk with verbs that misbehave: `python -m tests.workbench.fake_desk WORKSPACE`."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

from stages.desk import Job, main
from stages.store.desk import VERBS
from stages.store.errors import UserError, WorkFailed


def echo(job: Job, value: Any = None) -> Any:
    return value


def heed(job: Job) -> None:
    """Work for ever, but hear a cancel."""
    done = 0
    while True:
        done += 1
        job.progress(done, 0, "working")
        time.sleep(0.01)


def hang(job: Job) -> None:
    """Hang in C, with the lock of the interpreter: nothing of this process runs any more."""
    job.progress(1, 0, "hanging")
    re.match("(a+)+$", "a" * 60 + "b")


def doze(job: Job, seconds: float) -> str:
    """Sleep without hearing a cancel."""
    job.progress(1, 0, "dozing")
    time.sleep(seconds)
    return "awake"


def wait_for(job: Job, path: str) -> str:
    """Work until there is a file of that name."""
    job.progress(1, 0, "waiting")
    while not Path(path).exists():
        time.sleep(0.01)
    return "awake"


def die(job: Job) -> None:
    print("out of everything", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def huge(job: Job) -> str:
    return "x" * 40_000_000


def refuse(job: Job, failed: bool) -> None:
    raise (WorkFailed if failed else UserError)("It will not do.", "Do another.")


def break_(job: Job) -> None:
    raise ZeroDivisionError("by zero")


def babble(job: Job) -> None:
    """Write to the pipe what is not of the protocol, as no verb may."""
    for number in range(3, 32):
        try:
            os.write(number, b"{]\n")
        except OSError:
            continue


def library(job: Job) -> str:
    """Print, as libraries do."""
    print("a warning")
    os.system("echo from a child")
    return "answered"


if __name__ == "__main__":
    for verb in ("echo", "heed", "hang", "doze", "wait_for", "die", "huge", "refuse", "break_", "babble", "library"):
        VERBS[verb] = f"tests.workbench.fake_desk:{verb}"
    main(sys.argv[1:])
