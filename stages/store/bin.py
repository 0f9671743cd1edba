"""The bin: what is deleted lies in bin/<kind>/<time>--<name>/ until somebody empties it, and can be taken back.

Throwing away and taking back are one rename each, so that a kill leaves a thing in one place or the other. A checkpoint
lies in bin/checkpoints/<time>--<run's id>@<step>/, and goes back to its run.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from stages.store.checkpoints import list_checkpoints
from stages.store.errors import UserError, WorkFailed
from stages.store.files import disk_errors, settle, sync_folder, temporary_beside
from stages.store.names import nearest
from stages.store.rundir import RunDir
from stages.store.workspace import KINDS, Workspace

STAMP = "%Y%m%dT%H%M%S%f"
CHECKPOINTS = "checkpoints"


class Thrown(NamedTuple):
    """Something in the bin."""

    path: Path
    kind: str
    """datasets, tokenizers, models, runs or checkpoints."""
    name: str
    """Its folder's name, under which it goes back; of a checkpoint its run's id and its step, ID@STEP."""
    deleted: datetime.datetime
    """When, in UTC."""

    @property
    def title(self) -> str:
        """What people call it: a run's name instead of its id."""
        if self.kind not in ("runs", CHECKPOINTS):
            return self.name
        _, at, step = self.name.partition("@")
        folder = self.path if self.kind == "runs" else self.home.parents[1]
        try:
            return f"{RunDir(folder).spec().name}{at}{step}"
        except UserError:
            return self.name

    @property
    def home(self) -> Path:
        """Where it was, and goes back to."""
        root = self.path.parents[2]
        if self.kind != CHECKPOINTS:
            return root / self.kind / self.name
        run, _, step = self.name.partition("@")
        return RunDir(root / "runs" / run).checkpoints / f"step-{step}"

    def bytes(self) -> int:
        """What it takes on the disk. Reads all its folders; what vanishes meanwhile takes nothing."""
        total = 0
        for folder, _, names in os.walk(self.path):
            for name in names:
                with contextlib.suppress(OSError):
                    total += Path(folder, name).lstat().st_size
        return total


def throw(workspace: Workspace, path: Path, name: str = "") -> None:
    """Move a dataset, tokenizer, model, run or checkpoint into the bin. name: another than its folder's."""
    now = datetime.datetime.now(datetime.UTC).strftime(STAMP)
    _move(path, workspace.bin / path.parent.name / f"{now}--{name or path.name}")


def list_bin(workspace: Workspace) -> list[Thrown]:
    """What is in the bin, the newest first."""
    found = [
        thrown
        for kind in (*KINDS, CHECKPOINTS)
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
    """Put it back where it was. Raises UserError when something else has its name by now, or it is in the bin no more.

    What is being deleted for good has left the bin before its first file goes: what comes back is whole. A checkpoint
    does not come back while its run is at work or gone.
    """
    if thrown.kind == CHECKPOINTS:
        return _restore_checkpoint(workspace, thrown)
    return _put_back(thrown)


def _restore_checkpoint(workspace: Workspace, thrown: Thrown) -> Path:
    run = RunDir(thrown.home.parents[1])
    if not run.path.is_dir():
        raise UserError(f"The run of {thrown.title} is not there any more.", "Take the run back first, if it is here.")
    with run.held(f"The run of {thrown.title} is at work.", "Pause or stop it first."):
        final = _put_back(thrown)
        state = run.state()
        if there := list_checkpoints(run):  # nothing where what comes back is damaged
            state.last_checkpoint = there[-1].name
            run.write_state(state, durable=True)
    return final


def _put_back(thrown: Thrown) -> Path:
    final = thrown.home
    if final.exists():
        raise UserError(f"There is another {thrown.title!r} among the {thrown.kind} by now.", "Delete that one first.")
    try:
        _move(thrown.path, final)
    except FileNotFoundError as error:
        raise UserError(f"{thrown.name} is no longer in the bin.") from error
    return final


def _move(path: Path, final: Path) -> None:
    """One rename, durably. WorkFailed where a link in the workspace leads to another disk."""
    with disk_errors(final.parent):
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.rename(final)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            raise WorkFailed(
                f"{path} cannot be moved to {final.parent}: they lie on different disks.",
                "Make that folder of the bin a link to the disk of what it is to hold.",
            ) from error
        sync_folder(path.parent)
        sync_folder(final.parent)


def destroy(thrown: Thrown) -> None:
    """Delete it for good: its name in one step, then its content. What is gone already is done.

    Raises WorkFailed where the system keeps some of it, with the place where that lies.
    """
    title, doomed = thrown.title, temporary_beside(thrown.path)
    try:
        thrown.path.rename(doomed)
        sync_folder(thrown.path.parent)
        _remove(doomed)
    except FileNotFoundError:
        return
    except OSError as error:
        why, left = (error.strerror or str(error)).lower(), doomed if doomed.exists() else thrown.path
        raise WorkFailed(f"{title} is not deleted as a whole: {why}.", f"What is left lies in {left}.") from error
    settle(thrown.path.parent)  # what a killed one has left


def destroy_all(chosen: Iterable[Thrown]) -> list[UserError]:
    """Delete each for good, whatever becomes of the others; the errors of those that could not be."""
    failed = []
    for thrown in chosen:
        try:
            destroy(thrown)
        except UserError as error:
            failed.append(error)
    return failed


def _remove(folder: Path) -> None:
    """Delete a folder, folders in it that cannot be written included; another process may be at it too."""
    shutil.rmtree(folder, ignore_errors=True)
    for path, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):
            Path(path).chmod(stat.S_IRWXU)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


def _read(path: Path, kind: str) -> Thrown | None:
    stamp, separator, name = path.name.partition("--")
    try:
        when = datetime.datetime.strptime(stamp, STAMP).replace(tzinfo=datetime.UTC)
    except ValueError:
        return None
    return Thrown(path, kind, name, when) if separator and name else None
