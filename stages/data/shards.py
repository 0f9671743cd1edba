"""Token files beside a dataset: made once on demand, under a lock, complete or not at all, and mapped from disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from stages.store.errors import WorkFailed
from stages.store.files import check_space, disk_errors, publish_folder, settle, temporary_beside
from stages.store.locks import try_lock

SPLITS = ("train", "val")

Advance = Callable[[int, int], None]
"""Called with what is done and what there is in all. It may raise, to cancel."""

Opened = TypeVar("Opened")


def made_once(
    folder: Path, opened: Callable[[], Opened | None], make: Callable[[], None], waiting: Callable[[], None]
) -> Opened:
    """What `opened` finds in `folder`; where it finds nothing, `make` is called first.

    A second process waits for the first, and calls `waiting` again and again meanwhile. Raises WorkFailed when nothing
    is found although it has just been made.
    """
    found = opened()
    if found is not None:
        return found
    with disk_errors(folder.parent):
        folder.parent.mkdir(exist_ok=True)
        with _turn_at(folder.parent / f".lock-{folder.name}", waiting):
            found = opened()
            if found is None:
                make()
                found = opened()
    if found is None:
        raise WorkFailed(f"{folder} changed while it was being opened.", "Try again.")
    return found


@contextmanager
def filling(folder: Path, room: int) -> Iterator[Path]:
    """A temporary folder that becomes `folder` when all has gone well. `room` bytes must be free on the disk."""
    settle(folder.parent, folder.name)
    check_space(folder.parent, room)
    temporary = temporary_beside(folder)
    temporary.mkdir()
    try:
        yield temporary
        publish_folder(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def smallest(vocab_size: int) -> str:
    """The dtype that token ids are stored in."""
    return "uint16" if vocab_size <= 2**16 else "uint32"


def little_endian(dtype: str) -> np.dtype[Any]:
    """The dtype as it stands in files, on any machine."""
    return np.dtype(dtype).newbyteorder("<")


def mapped(path: Path, count: int, dtype: str) -> NDArray[Any] | None:
    """So many numbers of a file, mapped from disk; None when the file is missing or of another size."""
    kind = little_endian(dtype)
    if not path.is_file() or path.stat().st_size != count * kind.itemsize:
        return None
    return np.memmap(path, dtype=kind, mode="r") if count else np.empty(0, kind)  # an empty file cannot be mapped


@contextmanager
def _turn_at(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold `path` exclusively."""
    while (descriptor := try_lock(path)) is None:
        waiting()
    try:
        yield
    finally:
        os.close(descriptor)
