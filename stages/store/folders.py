"""Folders that people know by name: datasets, tokenizers, imported models. One is there once its file of facts is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from stages.store.building import recover_interrupted
from stages.store.errors import UserError
from stages.store.names import check_name, nearest

T = TypeVar("T")


def list_folders(parent: Path, facts: str, open_one: Callable[[Path], T]) -> list[T]:
    """All in `parent` that have the file `facts`, by name; what `open_one` refuses with a UserError is left out."""
    recover_interrupted(parent)
    if not parent.is_dir():
        return []
    found = []
    for path in sorted(parent.iterdir()):
        if not path.name.startswith(".") and (path / facts).is_file():
            try:
                found.append(open_one(path))
            except UserError:
                continue
    return found


def find_folder(parent: Path, facts: str, name: str, *, what: str, makes: str) -> Path:
    """The folder of this name that has the file `facts`; UserError naming the nearest otherwise.

    what: what it is called. makes: the command that makes one, without `workbench`.
    """
    recover_interrupted(parent)
    path = parent / check_name(name, f"name of a {what.rpartition(' ')[2]}")
    if not (path / facts).is_file():
        known = list_folders(parent, facts, lambda each: each.name)
        raise UserError(f"There is no {what} {name!r}.", nearest(name, known, makes))
    return path
