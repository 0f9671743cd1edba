"""Serving a checkpoint: the command that does it, and the one child of the app that does.

The child ends with its stdin, so it never outlives the app, however the app ends; `workbench serve` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from stages.store.workspace import worker_environment

HOST, PORT = "127.0.0.1", 8000
PATIENCE = 10.0
"""Seconds that an endpoint has to end by itself."""
KEPT = 200
"""Lines that are kept of what it says."""


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


class Serving:
    """One endpoint, from its start to its end. `lines` is what it has said: address and token among it."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.lines: list[str] = []
        self.ended = False
        self._process: asyncio.subprocess.Process | None = None

    @property
    def standing(self) -> Literal["starting", "serving", "ended"]:
        if self.ended:
            return "ended"
        return "serving" if any(line.split()[:1] == ["address"] for line in self.lines) else "starting"

    async def run(self) -> None:
        """Start it, and take down what it says until it ends."""
        options = ["--name", self.name, "--host", HOST, "--port", str(free_port()), "--until-stdin-ends"]
        pipe = asyncio.subprocess.PIPE
        self._process = process = await asyncio.create_subprocess_exec(
            *serve_command(self.folder, options),
            env=worker_environment(),
            stdin=pipe,
            stdout=pipe,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # ctrl+c in the terminal is the app's
        )
        assert process.stdout is not None
        try:
            while said := await process.stdout.readline():
                self.lines = [*self.lines, said.decode("utf-8", "replace").rstrip()][-KEPT:]
            await process.wait()
        finally:
            self.ended = True
            if process.returncode is None:
                process.kill()

    async def stop(self) -> None:
        """End it: what is being answered has a moment, then it is killed."""
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
