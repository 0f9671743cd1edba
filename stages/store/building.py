"""Making a named folder (a dataset, a tokenizer) so that it is whole or absent, by one process at a time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from stages.store.errors import UserError
from stages.store.files import PREVIOUS, TEMPORARY, disk_errors, publish_folder, settle, temporary_beside
from stages.store.locks import locked
from stages.store.names import check_name


@contextmanager
def building(folder: Path, name: str, what: str, *, replace: bool = False) -> Iterator[Path]:
    """A temporary folder that becomes `folder/name` when the block ends well, and vanishes otherwise.

    Raises UserError when `name` exists (unless `replace`) or another process is building it. `what` is the kind of
    thing, for messages.
    """
    final = folder / check_name(name, f"name of a {what}")
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with name_lock(folder, name) as held:
        if not held:
            raise UserError(f"Another process is building the {what} {name!r}.", "Wait for it, or choose another name.")
        settle(folder, name)
        if final.exists() and not replace:
            raise UserError(f"There is already a {what} {name!r}.", "Choose another name, or pass --replace.")
        temporary = temporary_beside(final)
        with disk_errors(folder):
            temporary.mkdir()
        try:
            with disk_errors(folder):
                yield temporary
            publish_folder(temporary, final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def recover_interrupted(folder: Path) -> None:
    """Bring back what stepped aside for a successor that a kill kept from arriving, and clear away strays.

    Cheap when there is nothing. A folder that cannot be written is left as it is.
    """
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return
    interrupted = {own for name in os.listdir(folder) if (own := _interrupted(name))}
    for own in interrupted:
        with name_lock(folder, own) as held:
            if held:
                settle(folder, own)


def _interrupted(name: str) -> str:
    """The name of the thing that a left-over folder belongs to; empty for what is no left-over."""
    if name.startswith(PREVIOUS):
        return name.removeprefix(PREVIOUS)
    return name.removeprefix(TEMPORARY).rpartition("-")[0] if name.startswith(TEMPORARY) else ""


def name_lock(folder: Path, name: str) -> AbstractContextManager[bool]:
    """Hold the lock on a name while the block lasts; False when another process is making what has it."""
    return locked(folder / f".lock-{name}")
