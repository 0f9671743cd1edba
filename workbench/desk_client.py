"""Asking the desk: the app's end of the pipes of stages/desk.py, and the command line's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from stages.store.desk import MAX_LINE, DeskProgress, DeskReply, DeskRequest
from stages.store.errors import UserError, WorkFailed
from stages.store.workspace import Workspace, installation_root

PATIENCE = 0.8
"""Seconds that a cancelled request has to end by itself; then the process is ended and a new one takes its place."""
KEPT_LINES = 20

Progress = Callable[[DeskProgress], object]


class DeskClient:
    """One helper process for an event loop, started when it is first asked and again when it has died."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._process: asyncio.subprocess.Process | None = None
        self._readers: list[asyncio.Task[None]] = []
        self._starting = asyncio.Lock()
        self._waiting: dict[int, tuple[asyncio.Future[Any], Progress | None]] = {}
        self._stderr: deque[str] = deque(maxlen=KEPT_LINES)
        self._next_id = 1

    async def ask(self, verb: str, *, on_progress: Progress | None = None, **args: Any) -> Any:
        """The verb's result, as plain JSON values. Raises UserError with what the desk says, WorkFailed when it dies.

        Cancelling the caller cancels the request.
        """
        process = await self._running()
        id_, self._next_id = self._next_id, self._next_id + 1
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[id_] = (answer, on_progress)
        try:
            self._send(process, DeskRequest(id=id_, verb=verb, args=args))
            return await answer
        except asyncio.CancelledError:
            self._send(process, DeskRequest(cancel=id_))
            asyncio.get_running_loop().call_later(PATIENCE, self._end_if_stuck, process, id_)
            raise
        finally:
            if answer.done() and not answer.cancelled():
                self._waiting.pop(id_, None)

    async def close(self) -> None:
        """End the process; nothing is lost with it."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        for reader in self._readers:
            reader.cancel()

    async def _running(self) -> asyncio.subprocess.Process:
        async with self._starting:
            if self._process is None or self._process.returncode is not None:
                self._stderr.clear()
                self._process = await asyncio.create_subprocess_exec(
                    *_command(self._workspace),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    limit=MAX_LINE,
                    cwd=installation_root(),
                    env=_environment(),
                    start_new_session=True,
                )
                self._readers = [
                    asyncio.create_task(self._listen(self._process)),
                    asyncio.create_task(self._keep_stderr(self._process)),
                ]
            return self._process

    @staticmethod
    def _send(process: asyncio.subprocess.Process, request: DeskRequest) -> None:
        if process.stdin is not None and not process.stdin.is_closing():
            process.stdin.write(msgspec.json.encode(request) + b"\n")

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            reply = msgspec.json.decode(line, type=DeskReply)
            answer, on_progress = self._waiting.get(reply.id, (None, None))
            if reply.progress is not None:
                if on_progress and answer is not None and not answer.done():
                    on_progress(reply.progress)
                continue
            self._waiting.pop(reply.id, None)
            if answer is not None and not answer.done():
                _settle(answer, reply)
        code = await process.wait()
        last = next((text.strip() for text in reversed(self._stderr) if text.strip()), "")
        died = WorkFailed(
            f"The helper process ended with exit code {code}{': ' + last[:200] if last else ''}.", "Try again."
        )
        waiting, self._waiting = self._waiting, {}
        for answer, _ in waiting.values():
            if not answer.done():
                answer.set_exception(died)

    async def _keep_stderr(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        while data := await process.stderr.read(65_536):
            self._stderr.extend(data.decode("utf-8", "replace").splitlines()[-KEPT_LINES:])

    def _end_if_stuck(self, process: asyncio.subprocess.Process, id_: int) -> None:
        if id_ in self._waiting and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()


def ask_once(workspace: Workspace, verb: str, *, on_progress: Progress | None = None, **args: Any) -> Any:
    """One question to a helper process of its own, for the command line. Raises like `DeskClient.ask`."""
    process = subprocess.Popen(
        _command(workspace), stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=installation_root(), env=_environment()
    )
    assert process.stdin and process.stdout
    try:
        process.stdin.write(msgspec.json.encode(DeskRequest(id=1, verb=verb, args=args)) + b"\n")
        process.stdin.flush()
        for line in process.stdout:
            reply = msgspec.json.decode(line, type=DeskReply)
            if reply.progress is not None:
                if on_progress:
                    on_progress(reply.progress)
            elif reply.error is not None:
                raise _refusal(reply)
            else:
                return msgspec.json.decode(reply.result or b"null")
        raise WorkFailed(f"The helper process ended with exit code {process.wait()}.", "Try again.")
    finally:
        process.kill()
        process.wait()


def _command(workspace: Workspace) -> list[str]:
    return [sys.executable, "-P", "-m", "stages.desk", str(workspace.root.absolute())]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(installation_root()), "PYTHONSAFEPATH": "1"}


def _settle(answer: asyncio.Future[Any], reply: DeskReply) -> None:
    if reply.error is not None:
        answer.set_exception(_refusal(reply))
    else:
        answer.set_result(msgspec.json.decode(reply.result or b"null"))


def _refusal(reply: DeskReply) -> UserError:
    assert reply.error is not None
    kind = WorkFailed if reply.failed else UserError
    return kind(reply.error.title, reply.error.hint)
