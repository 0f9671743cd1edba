"""Serving a checkpoint: the command that does it, and the one child of the app that does.

The child ends with its stdin, so it never outlives the app, however the app ends; `workbench serve` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import secrets
import socket
import sys
from collections import deque
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Literal

from stages.store.workspace import worker_environment

HOST, PORT = "127.0.0.1", 8000
TOKEN = "WORKBENCH_SERVE_TOKEN"
"""The environment variable that hands the token over: arguments can be read by everybody on the machine."""
PATIENCE = 10.0
"""Seconds that an endpoint has to end by itself."""
KEPT = 200
"""Lines that are kept of what it says beside the facts."""
FACTS = ("Serving", "address", "token", "try")
"""First words of the lines that say what it serves and how it is reached: the first of each is kept for good."""
TOO_LONG = "… a line that is too long to be shown"


def serve_command(folder: Path, options: Sequence[str]) -> list[str]:
    """The command that serves a model folder."""
    return [sys.executable, "-P", "-m", "stages.serve", *options, "--", str(folder.absolute())]


def free_port() -> int:
    """The usual port, or 0 for any that is free where that one is taken."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((HOST, PORT))
        except OSError:
            return 0
    return PORT


@functools.cache
def own_token() -> str:
    """The token of all endpoints of this app: whoever knows it goes on when another checkpoint takes the place."""
    return os.environ.get(TOKEN) or secrets.token_urlsafe(24)


class Serving:
    """One endpoint, from its start to its end."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.ended = False
        self._facts: dict[str, str] = {}
        self._rest: deque[str] = deque(maxlen=KEPT)
        self._begun = False
        self._spawned = asyncio.Event()
        """Set when there is a process, or will be none."""
        self._process: asyncio.subprocess.Process | None = None

    @property
    def lines(self) -> list[str]:
        """What it has said: address and token first, then the last of the rest."""
        return [*self._facts.values(), *self._rest]

    @property
    def standing(self) -> Literal["starting", "serving", "ended"]:
        if self.ended:
            return "ended"
        return "serving" if "address" in self._facts else "starting"

    def take(self, said: str) -> None:
        """Take down a line that it says."""
        word = next(iter(said.split(maxsplit=1)), "")
        if word in FACTS and word not in self._facts:
            self._facts[word] = said
        else:
            self._rest.append(said)

    async def run(self) -> None:
        """Start it, and take down what it says until it ends."""
        if self.ended:
            return  # another took its place before it began
        self._begun = True
        try:
            self._process = await self._spawn()
            self._spawned.set()
            async for said in _lines(self._process):
                self.take(said)
            await self._process.wait()
        except OSError as error:
            self.take(f"The endpoint cannot be started: {error.strerror or error}.")
        finally:
            self.ended = True
            self._spawned.set()
            if self._process is not None and self._process.returncode is None:
                self._process.kill()

    async def stop(self) -> None:
        """End it, even where it is only about to start: what is being answered has a moment, then it is killed."""
        if not self._begun:
            self.ended = True
            return
        await self._spawned.wait()
        process = self._process
        if process is None or process.returncode is not None:
            return
        if process.stdin is not None:
            process.stdin.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), PATIENCE)
        if process.returncode is None:
            process.kill()
            await process.wait()

    async def _spawn(self) -> asyncio.subprocess.Process:
        options = ["--name", self.name, "--host", HOST, "--port", str(free_port()), "--until-stdin-ends"]
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            *serve_command(self.folder, options),
            env={**worker_environment(), TOKEN: own_token()},
            stdin=pipe,
            stdout=pipe,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # ctrl+c in the terminal is the app's
        )


async def _lines(process: asyncio.subprocess.Process) -> AsyncIterator[str]:
    assert process.stdout is not None
    while True:
        try:
            said = await process.stdout.readline()
        except ValueError:  # a line above asyncio's limit, of which it has dropped what it had
            yield TOO_LONG
            continue
        if not said:
            return
        yield said.decode("utf-8", "replace").rstrip()
