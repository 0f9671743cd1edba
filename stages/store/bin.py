"""The bin: what is deleted lies in bin/<kind>/<time>--<name>/ until somebody empties it, and can be taken back.

Throwing away and taking back are one rename each, so that a kill leaves a thing in one place or the other.
"""

from __future__ import annotations

import datetime
import shutil
from pathlib import Path
from typing import NamedTuple

from stages.store.errors import UserError
from stages.store.files import disk_errors, sync_folder
from stages.store.names import nearest
from stages.store.rundir import RunDir
from stages.store.workspace import KINDS, Workspace

STAMP = "%Y%m%dT%H%M%S%f"


class Thrown(NamedTuple):
    """Something in the bin."""

    path: Path
    kind: str
    """datasets, tokenizers, models or runs."""
    name: str
    """Its folder's name, under which it goes back."""
    deleted: datetime.datetime
    """When, in UTC."""

    @property
    def title(self) -> str:
        """What people call it: a run's name instead of its id."""
        if self.kind != "runs":
            return self.name
        try:
            return RunDir(self.path).spec().name
        except UserError:
            return self.name

    def bytes(self) -> int:
        """What it takes on the disk. Reads all its folders."""
        return sum(path.lstat().st_size for path in self.path.rglob("*") if path.is_file())


def throw(workspace: Workspace, path: Path) -> None:
    """Move a dataset, tokenizer, model or run into the bin."""
    now = datetime.datetime.now(datetime.UTC).strftime(STAMP)
    final = workspace.bin / path.parent.name / f"{now}--{path.name}"
    with disk_errors(path.parent):
        final.parent.mkdir(parents=True, exist_ok=True)
        path.rename(final)
        sync_folder(path.parent)
        sync_folder(final.parent)


def list_bin(workspace: Workspace) -> list[Thrown]:
    """What is in the bin, the newest first."""
    found = [
        thrown
        for kind in KINDS
        if (workspace.bin / kind).is_dir()
        for path in (workspace.bin / kind).iterdir()
        if (thrown := _read(path, kind))
    ]
    return sorted(found, key=lambda thrown: thrown.deleted, reverse=True)


def find_thrown(workspace: Workspace, name: str) -> Thrown:
    """The newest thing of this name, KIND/NAME or a run's id, in the bin; UserError naming the nearest otherwise."""
    titles = {thrown: thrown.title for thrown in list_bin(workspace)}
    for thrown, title in titles.items():
        if name in (thrown.name, title, f"{thrown.kind}/{title}"):
            return thrown
    raise UserError(f"There is no {name!r} in the bin.", nearest(name, titles.values()))


def restore(workspace: Workspace, thrown: Thrown) -> Path:
    """Put it back where it was. Raises UserError when something else has its name by now."""
    final = workspace.root / thrown.kind / thrown.name
    if final.exists():
        raise UserError(f"There is another {thrown.name!r} among the {thrown.kind} by now.", "Delete that one first.")
    with disk_errors(final.parent):
        final.parent.mkdir(parents=True, exist_ok=True)
        thrown.path.rename(final)
        sync_folder(thrown.path.parent)
        sync_folder(final.parent)
    return final


def destroy(thrown: Thrown) -> None:
    """Delete it for good."""
    with disk_errors(thrown.path.parent):
        shutil.rmtree(thrown.path)


def _read(path: Path, kind: str) -> Thrown | None:
    stamp, separator, name = path.name.partition("--")
    try:
        when = datetime.datetime.strptime(stamp, STAMP).replace(tzinfo=datetime.UTC)
    except ValueError:
        return None
    return Thrown(path, kind, name, when) if separator and name else None
