"""Locks on files (flock): held by a process and its heirs, and free the moment the last of them is gone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

GLANCE = 0.005
"""Seconds between tries: who asks whether a lock is held takes it for microseconds."""


def try_lock(path: Path, *, tries: int = 20) -> int | None:
    """Take the lock on a file, made where there is none; the descriptor that holds it, or None when another has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    for remaining in reversed(range(tries)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if remaining:
                time.sleep(GLANCE)
        else:
            return descriptor
    os.close(descriptor)
    return None


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold the lock on a file while the block lasts; False when another process has it."""
    descriptor = try_lock(path)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock on a file, which need not exist and may be another user's."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
