"""The app's helper on pipes: `python -P -m stages.desk WORKSPACE`. It does what the app may not import.

Paging Parquet, tokens of a text, rendering a template, checking a file. Each request is a verb of
`stages.store.desk.VERBS`, answered in a thread of its own: `function(job, **args)` returns plain JSON values. It calls
`job.check()` or `job.progress()` often, which end it when it is cancelled. The process keeps nothing that matters: it
may be killed at any time, a verb may then be asked for a second time, and the process ends when its stdin does.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from stages.store.chat import Trouble
from stages.store.desk import MAX_LINE, VERBS, DeskProgress, DeskReply, DeskRequest
from stages.store.errors import UserError, WorkFailed
from stages.store.workspace import Workspace

BETWEEN = 0.1
"""Seconds between two reports of progress."""


class Cancelled(Exception):
    """Nobody waits for the answer any more."""


class Job:
    """One request at work, as its verb sees it."""

    def __init__(self, workspace: Workspace, tell: Callable[[DeskProgress], object] = lambda _: None) -> None:
        self.workspace = workspace
        self.cancelled = threading.Event()
        self._tell = tell
        self._told = 0.0

    def check(self) -> None:
        """Raise Cancelled when the request has been cancelled."""
        if self.cancelled.is_set():
            raise Cancelled

    def progress(self, done: int, total: int, phase: str = "") -> None:
        """Say how far it is, at most ten times a second; raises Cancelled like `check`."""
        self.check()
        now = time.monotonic()
        if now - self._told >= BETWEEN:
            self._told = now
            self._tell(DeskProgress(done, total, phase))


class Desk:
    """Reads requests, runs verbs, writes answers."""

    def __init__(self, workspace: Workspace, out: BinaryIO) -> None:
        self.workspace = workspace
        self._out = out
        self._writing = threading.Lock()
        self._jobs: dict[int, Job] = {}

    def serve(self, stdin: BinaryIO) -> None:
        """Until stdin ends. A line that is no request is said on stderr and passed over."""
        while line := stdin.readline(MAX_LINE):
            if not line.endswith(b"\n"):
                while line and not line.endswith(b"\n"):  # the rest of a line that is too long
                    line = stdin.readline(MAX_LINE)
                print(f"a request of more than {MAX_LINE:,} bytes was not read", file=sys.stderr, flush=True)
                continue
            try:
                self._take(msgspec.json.decode(line, type=DeskRequest))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                print(f"not a request: {error}", file=sys.stderr, flush=True)

    def say(self, reply: DeskReply) -> None:
        """Write one line, whole. When nobody reads any more the process has nothing left to do."""
        rest = memoryview(msgspec.json.encode(reply) + b"\n")
        try:
            with self._writing:
                while rest:
                    rest = rest[self._out.write(rest) or 0 :]
        except BrokenPipeError:
            os._exit(0)

    def _take(self, request: DeskRequest) -> None:
        if request.cancel is not None:
            if job := self._jobs.get(request.cancel):
                job.cancelled.set()
        elif (id_ := request.id) is not None:
            job = Job(self.workspace, lambda progress: self.say(DeskReply(id_, progress=progress)))
            self._jobs[id_] = job
            threading.Thread(target=self._answer, args=(job, id_, request), daemon=True).start()

    def _answer(self, job: Job, id_: int, request: DeskRequest) -> None:
        reply = self._reply(job, id_, request)
        self._jobs.pop(id_, None)
        self.say(reply)

    def _reply(self, job: Job, id_: int, request: DeskRequest) -> DeskReply:
        try:
            result = msgspec.json.encode(verb(request.verb)(job, **request.args))
            if len(result) > MAX_LINE // 2:
                raise WorkFailed("The answer is too large to show.", "Ask for fewer records at once.")
            return DeskReply(id_, result=msgspec.Raw(result))
        except Cancelled:
            return DeskReply(id_, error=Trouble("Cancelled."))
        except UserError as error:
            return DeskReply(id_, error=Trouble(error.title, error.hint), failed=isinstance(error, WorkFailed))
        except Exception as error:  # noqa: BLE001  # what a damaged file brings about; the traceback goes to stderr
            traceback.print_exc()
            told = Trouble(f"{request.verb} failed: {type(error).__name__}: {str(error)[:300]}.")
            return DeskReply(id_, error=told, failed=True)


def verb(name: str) -> Any:
    """The function behind a verb. UserError when there is none of that name."""
    if name not in VERBS:
        raise UserError(f"The desk has no verb {name!r}.")
    module, _, function = VERBS[name].partition(":")
    return getattr(importlib.import_module(module), function)


def main(arguments: list[str]) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl+c is for the app, which then closes our stdin
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what libraries print goes to stderr
    Desk(Workspace(Path(arguments[0])), out).serve(sys.stdin.buffer)
    os._exit(0)  # requests still at work have nobody to answer


if __name__ == "__main__":
    main(sys.argv[1:])
