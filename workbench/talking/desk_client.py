"""Asking the desk: the app's end of the pipes of stages/desk.py, and the command line's."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from stages.store.desk import MAX_LINE, DeskProgress, DeskReply, DeskRequest
from stages.store.errors import UserError, WorkFailed
from stages.store.workspace import Workspace, installation_root, worker_environment
from workbench.talking.child import begin

PATIENCE = 0.7
"""Seconds that a cancelled request has to end by itself; then the process is ended and a new one takes its place."""
KEPT_LINES = 20

Progress = Callable[[DeskProgress], object]


class DeskClient:
    """One helper process for an event loop, started when it is first asked and again when it has died."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._helper: _Helper | None = None
        self._starting = asyncio.Lock()
        self._next_id = 1

    @property
    def pid(self) -> int | None:
        """The process at work, if there is one."""
        return self._helper.process.pid if self._helper is not None and self._helper.alive else None

    async def ask(self, verb: str, *, on_progress: Progress | None = None, **args: Any) -> Any:
        """The verb's result, as plain JSON values. Raises UserError with what the desk says, WorkFailed when it dies.

        Cancelling the caller cancels the request. When the process is ended because another request did not heed its
        cancelling, this one is put to the next process.
        """
        id_, self._next_id = self._next_id, self._next_id + 1
        line = encode(DeskRequest(id=id_, verb=verb, args=args))
        while True:
            with contextlib.suppress(_Restarted):
                return await (await self._running()).ask(id_, line, on_progress)

    async def start(self) -> None:
        """Start the process ahead of the first question."""
        await self._running()

    async def close(self) -> None:
        """End the process; nothing is lost with it."""
        helper, self._helper = self._helper, None
        if helper is not None:
            await helper.close()

    async def _running(self) -> _Helper:
        async with self._starting:
            if self._helper is None or not self._helper.alive:
                self._helper = await _Helper.start(self._workspace)
            return self._helper


class _Restarted(Exception):
    """The process was ended because of another request."""


@dataclass
class _Question:
    answer: asyncio.Future[Any]
    on_progress: Progress | None


class _Helper:
    """One process with the questions that wait for it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.alive = True
        self._stuck = False
        self._questions: dict[int, _Question] = {}
        self._stderr: deque[str] = deque(maxlen=KEPT_LINES)
        self._readers = [asyncio.create_task(self._listen()), asyncio.create_task(self._keep_stderr())]

    @classmethod
    async def start(cls, workspace: Workspace) -> _Helper:
        return cls(await begin(_command(workspace), "helper process", limit=MAX_LINE))

    async def ask(self, id_: int, line: bytes, on_progress: Progress | None) -> Any:
        """Send a question and wait for its answer."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._questions[id_] = _Question(answer, on_progress)
        try:
            self._send(line)
            return await answer
        except asyncio.CancelledError:
            self._send(encode(DeskRequest(cancel=id_)))
            asyncio.get_running_loop().call_later(PATIENCE, self._end_if_stuck, id_)
            raise

    async def close(self) -> None:
        """End the process and wait until it is gone."""
        self._end()
        await asyncio.gather(*self._readers, return_exceptions=True)

    def _send(self, line: bytes) -> None:
        if self.process.stdin is not None and not self.process.stdin.is_closing():
            self.process.stdin.write(line)

    async def _listen(self) -> None:
        """Hand out the answers until the process ends; then tell all who still wait."""
        assert self.process.stdout is not None
        with contextlib.suppress(ValueError):  # a line too long, or not of our language
            while line := await self.process.stdout.readline():
                self._hear(msgspec.json.decode(line, type=DeskReply))
            self.alive = False
            with contextlib.suppress(TimeoutError):  # it is ending by itself, and its exit code says how
                await asyncio.wait_for(self.process.wait(), PATIENCE)
        self._end()
        code = await self.process.wait()
        await asyncio.wait([self._readers[1]], timeout=PATIENCE)
        for question in self._questions.values():
            if not question.answer.done():
                question.answer.set_exception(_Restarted() if self._stuck else _died(code, self._stderr))

    def _hear(self, reply: DeskReply) -> None:
        question = self._questions.get(reply.id)
        if reply.progress is not None:
            if question is not None and question.on_progress and not question.answer.done():
                asyncio.get_running_loop().call_soon(question.on_progress, reply.progress)
            return
        self._questions.pop(reply.id, None)
        if question is not None and not question.answer.done():
            _settle(question.answer, reply)

    async def _keep_stderr(self) -> None:
        assert self.process.stderr is not None
        while data := await self.process.stderr.read(65_536):
            self._stderr.extend(data.decode("utf-8", "replace").splitlines()[-KEPT_LINES:])

    def _end_if_stuck(self, id_: int) -> None:
        if id_ in self._questions and self.alive:
            self._stuck = True
            self._end()

    def _end(self) -> None:
        self.alive = False
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()


def ask_once(workspace: Workspace, verb: str, *, on_progress: Progress | None = None, **args: Any) -> Any:
    """One question to a helper process of its own, for the command line. Raises like `DeskClient.ask`."""
    line = encode(DeskRequest(id=1, verb=verb, args=args))
    process = subprocess.Popen(
        _command(workspace),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=installation_root(),
        env=worker_environment(),
    )
    assert process.stdin and process.stdout
    try:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(line)
            process.stdin.flush()
        for answer in process.stdout:
            reply = msgspec.json.decode(answer, type=DeskReply)
            if reply.progress is not None:
                if on_progress:
                    on_progress(reply.progress)
            elif reply.error is not None:
                raise _refusal(reply)
            else:
                return reply.result
        raise _died(process.wait(), ())
    finally:
        process.kill()
        process.communicate()


def encode(request: DeskRequest) -> bytes:
    """The line of a request, newline included. UserError for one that cannot travel."""
    try:
        line = msgspec.json.encode(request) + b"\n"
    except UnicodeEncodeError as error:
        raise UserError("The text has characters that no file can hold (lone surrogates).", "Remove them.") from error
    if len(line) > MAX_LINE:
        raise UserError(f"The text has more than {MAX_LINE / 1e6:.0f} MB.", "Choose a smaller one.")
    return line


def _command(workspace: Workspace) -> list[str]:
    return [sys.executable, "-P", "-m", "stages.desk", str(workspace.root.absolute())]


def _settle(answer: asyncio.Future[Any], reply: DeskReply) -> None:
    if reply.error is not None:
        answer.set_exception(_refusal(reply))
    else:
        answer.set_result(reply.result)


def _refusal(reply: DeskReply) -> UserError:
    assert reply.error is not None
    kind = WorkFailed if reply.failed else UserError
    return kind(reply.error.title, reply.error.hint)


def _died(code: int, lines: Iterable[str]) -> WorkFailed:
    """Why the process is gone, from its exit code and the last thing it said."""
    last = next((line.strip() for line in reversed([*lines]) if line.strip()), "")
    how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return WorkFailed(f"The helper process {how}{': ' + last[:200] if last else ''}.", "Try again.")
