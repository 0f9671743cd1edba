"""A process of ours that answers in lines: how the app begins one."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Sequence

from stages.store.errors import WorkFailed
from stages.store.workspace import installation_root, worker_environment


async def begin(command: Sequence[str], what: str, *, limit: int) -> asyncio.subprocess.Process:
    """Start `command` in a session of its own, with pipes whose lines have at most `limit` bytes.

    Raises WorkFailed, which calls it `what`, where the system has no more processes or memory to give.
    """
    try:
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            limit=limit,
            cwd=installation_root(),
            env=worker_environment(),
            start_new_session=True,
        )
    except OSError as error:
        raise WorkFailed(f"The {what} cannot be started: {error}.", "Close other programs.") from error
