"""Talking to a chat process: the app's end of the pipes of stages/chat.py.

The process ends with its stdin, so it never outlives the app, however the app ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import msgspec

from stages.store.chat import MAX_LINE, Done, Facts, Reply, Request, Turn, encode, well_formed
from stages.store.checkpoints import resolve_checkpoint
from stages.store.errors import UserError, WorkFailed
from stages.store.specs.chat import Chat
from stages.store.workspace import Workspace, installation_root, worker_environment
from workbench.talking.child import begin

KEPT_LINES = 40
"""Lines of the process's stderr that are kept to explain its death."""
IDLE = 1_800.0
"""Seconds without a request after which the process gives its memory back."""
CLOSING = 2.0
"""Seconds that the process has to end by itself when it is closed."""


class ChatClient:
    """One chat process, for an event loop. `open`, then `complete` as often as wanted, then `close`."""

    def __init__(self) -> None:
        self.facts: Facts | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._stderr: deque[str] = deque(maxlen=KEPT_LINES)
        self._drain: asyncio.Task[None] | None = None
        self._next_id = 1
        self._running: int | None = None
        self.idled = False
        self.tokens = 0
        """Tokens of the running completion so far."""

    @property
    def alive(self) -> bool:
        """Whether a process runs that has said it is ready."""
        return self.facts is not None and self._process is not None and self._process.returncode is None

    @property
    def talks(self) -> bool:
        """Whether the model answers a conversation, rather than continuing text."""
        return self.facts is not None and self.facts.kind == "chat"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def open(self, folder: Path, *, device: str = "auto", idle: float = IDLE) -> Facts:
        """Start the process and wait until the model is loaded. Raises UserError with what it says otherwise."""
        await self.close()
        self.idled = False
        self._stderr.clear()
        self._process = await begin(_command(folder, device, idle), "chat process", limit=MAX_LINE)
        self._drain = asyncio.create_task(self._keep_stderr(self._process))
        reply = await self._read()
        if reply.ready is None:
            await self.close()
            raise _refusal(reply)
        self.facts = reply.ready
        return reply.ready

    async def load(self, workspace: Workspace, checkpoint: str) -> tuple[Path, Facts]:
        """Open a checkpoint as people write it; its folder, too. What a run deletes meanwhile has a successor.

        Raises UserError as `open` does, and where there is no such checkpoint.
        """
        found = await asyncio.to_thread(resolve_checkpoint, workspace, checkpoint)
        while True:
            try:
                return found.path, await self.open(found.path)
            except UserError:
                missed, found = found, await asyncio.to_thread(resolve_checkpoint, workspace, checkpoint)
                if found.path == missed.path:
                    raise

    async def complete(self, prompt: str | list[Turn], sampling: Chat) -> AsyncIterator[str | Done]:
        """Pieces of text as they come, and Done as the last: of what continues a text, or answers a conversation.

        Raises UserError when refused or when the process dies.
        """
        self._running, self._next_id = self._next_id, self._next_id + 1
        self.tokens = 0
        try:
            await self._send(_request(self._running, prompt, sampling))
            while True:
                reply = await self._read()
                if reply.id != self._running:
                    continue  # the rest of a request that was given up
                if reply.text is not None:
                    self.tokens = reply.tokens
                    yield reply.text
                elif reply.done is not None:
                    yield reply.done
                    return
                else:
                    raise _refusal(reply)
        finally:
            self._running = None

    async def cancel(self) -> None:
        """Ask the process to end the running completion, which then yields its Done."""
        if self._running is not None:
            await self._send(Request(cancel=self._running))

    async def watch(self) -> UserError | None:
        """Wait until the process is gone; why, unless it was closed or `complete` says it."""
        process = self._process
        if process is None:
            return None
        await process.wait()
        if self._process is not process or self._running is not None:
            return None
        try:
            while True:
                await self._read()
        except UserError as death:
            return death

    async def close(self) -> None:
        """End the process: gently, then not."""
        process, self._process, self.facts = self._process, None, None
        if process is None:
            return
        if process.stdin:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), CLOSING)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if self._drain:
            self._drain.cancel()

    async def _send(self, request: Request) -> None:
        if self._process is None or self._process.stdin is None:
            raise WorkFailed("No model is loaded.", "Choose a checkpoint.")
        try:
            self._process.stdin.write(encode(request))
            await self._process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError) as error:
            raise await self._death(self._process) from error

    async def _read(self) -> Reply:
        process = self._process
        if process is None or process.stdout is None:
            raise WorkFailed("No model is loaded.", "Choose a checkpoint.")
        try:
            line = await process.stdout.readline()
        except ValueError as error:  # a line over the limit
            raise WorkFailed("The chat process does not speak our language.", "Start it again.") from error
        if not line.endswith(b"\n"):
            raise await self._death(process)
        reply = _decode(line)
        if reply.ended is not None:
            self.idled = True
            raise await self._death(process)
        return reply

    async def _death(self, process: asyncio.subprocess.Process) -> UserError:
        self.facts = None
        code = await process.wait()
        if self._drain:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._drain, CLOSING)
        return _died(code, list(self._stderr), self.idled)

    async def _keep_stderr(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        while data := await process.stderr.read(65_536):
            self._stderr.extend(data.decode("utf-8", "replace").splitlines()[-KEPT_LINES:])


def complete_once(
    folder: Path,
    text: str | Callable[[Facts], str],
    sampling: Chat,
    *,
    device: str = "auto",
    on_ready: Callable[[Facts], object] | None = None,
    on_done: Callable[[Done], object] | None = None,
) -> Iterator[str]:
    """What continues a text, or a chat model's answer to it, piece by piece. Raises UserError when it cannot be had.

    `text` may be made once the model's facts are known. `on_ready` hears of the model when it is loaded, `on_done` of
    the outcome. Closing the iterator ends the process.
    """
    process = subprocess.Popen(
        _command(folder, device, IDLE),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=installation_root(),
        env=worker_environment(),
        start_new_session=True,
    )
    assert process.stdin and process.stdout
    kept: deque[str] = deque(maxlen=KEPT_LINES)
    keeper = threading.Thread(target=_keep_lines, args=(process, kept), daemon=True)
    keeper.start()
    try:
        for line in process.stdout:
            reply = _decode(line)
            if reply.ready is not None:
                if on_ready:
                    on_ready(reply.ready)
                said = text if isinstance(text, str) else text(reply.ready)
                asked = [*system_turn(sampling), Turn("user", said)] if reply.ready.kind == "chat" else said
                process.stdin.write(encode(_request(1, asked, sampling)))
                process.stdin.flush()
            elif reply.text is not None:
                yield reply.text
            elif reply.done is not None:
                if on_done:
                    on_done(reply.done)
                return
            else:
                raise _refusal(reply)
        code = process.wait()
        keeper.join(CLOSING)
        raise _died(code, list(kept), False)
    except BrokenPipeError as error:
        keeper.join(CLOSING)
        raise _died(process.wait(), list(kept), False) from error
    finally:
        _end(process)


def _request(id_: int, prompt: str | list[Turn], sampling: Chat) -> Request:
    values = msgspec.to_builtins(sampling)
    if isinstance(prompt, str):
        return Request(id=id_, prompt=well_formed(prompt), sampling=values)
    return Request(id=id_, messages=[Turn(t.role, well_formed(t.content)) for t in prompt], sampling=values)


def system_turn(sampling: Chat) -> list[Turn]:
    """The message that a conversation begins with, if the settings say one."""
    return [Turn("system", sampling.system)] if sampling.system else []


def _command(folder: Path, device: str, idle: float) -> list[str]:
    options = ["--device", device, "--idle", str(idle)]
    return [sys.executable, "-P", "-m", "stages.chat", *options, "--", str(folder.absolute())]


def _decode(line: bytes) -> Reply:
    try:
        return msgspec.json.decode(line, type=Reply)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WorkFailed("The chat process does not speak our language.", "Start it again.") from error


def _refusal(reply: Reply) -> UserError:
    if reply.error is None:
        return WorkFailed("The chat process does not speak our language.", "Start it again.")
    return UserError(reply.error.title, reply.error.hint)


def _died(code: int, lines: list[str], idled: bool) -> UserError:
    """Why the process is gone, from its exit code and the last thing it said."""
    if idled:
        return WorkFailed("The model was put away after a while without a question.", "Ask again to load it.")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return WorkFailed(f"The chat process {how}{': ' + last[:200] if last else ''}.", "Start it again.")


def _keep_lines(process: subprocess.Popen[bytes], kept: deque[str]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        kept.append(line.decode("utf-8", "replace").rstrip("\n"))


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(BrokenPipeError):
        if process.stdin:
            process.stdin.close()
    try:
        process.wait(CLOSING)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout:
        process.stdout.close()
