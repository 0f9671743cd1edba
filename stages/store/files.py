"""Writing files so that a reader sees the old one or the new one, never half of one; and reading those of JSON."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from stages.store.errors import UNREADABLE, UserError, WorkFailed

F = TypeVar("F")

TEMPORARY = ".tmp-"
"""Prefix of names that are not yet, or no longer, part of the workspace. Strays with it may be deleted at start."""

LONGEST_SHOWN = 80
"""Characters of a path that a refusal repeats."""

PREVIOUS = ".previous-"
"""Prefix of a folder that stepped aside for its successor. It goes back when the successor did not arrive."""


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full or read-only disk under `path` into one sentence that names it."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise WorkFailed(
                f"The disk that holds {path} is full.", "Free some space there; nothing already written was lost."
            ) from error
        if error.errno == errno.EFBIG:
            raise WorkFailed(
                f"The disk that holds {path}, or a limit on this session, allows no larger file.",
                "Choose a workspace elsewhere with WORKBENCH_HOME, or raise the limit (ulimit -f).",
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise WorkFailed(
                f"{path} cannot be written: {os.strerror(error.errno).lower()}.",
                "Choose a workspace you own with WORKBENCH_HOME, or change the permissions.",
            ) from error
        raise


def check_space(folder: Path, need: int) -> None:
    """Raise WorkFailed unless the disk under `folder` has `need` bytes free."""
    free = shutil.disk_usage(_existing(folder)).free
    if free < need:
        raise WorkFailed(
            f"{need / 1e6:.0f} MB are needed on the disk that holds {folder}, and {free / 1e6:.0f} MB are free.",
            "Free some space there, then try again.",
        )


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk that holds `folder`, which need not exist yet."""
    return shutil.disk_usage(_existing(folder)).free


def temporary_beside(path: Path) -> Path:
    """A name in the folder of `path` that nothing else uses and that a clean-up recognises."""
    return path.parent / f"{TEMPORARY}{path.name}-{secrets.token_hex(4)}"


def path_of(text: str) -> Path:
    """What a person wrote as a path, with `~` expanded, whether there is such a file or not.

    UserError where the system cannot look: a home of nobody, a name too long, a folder that is closed.
    """
    try:
        path = Path(text).expanduser()
        path.exists()
    except RuntimeError as error:
        raise UserError(f"{text!r} is no file or folder: there is no such user.") from error
    except OSError as error:
        shown = text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"
        raise UserError(f"{shown!r} is no file or folder: {os.strerror(error.errno or 0).lower()}.") from error
    return path


def unused(path: Path) -> Path:
    """The path, or one with a number behind it when something is there from another time."""
    number, free = 2, path
    while free.exists():
        free, number = path.with_name(f"{path.name}.{number}"), number + 1
    return free


def write_atomic(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Replace `path` by `data`. With `durable` it is on disk (fsync of file and folder) before this returns."""
    temporary = temporary_beside(path)
    with disk_errors(path.parent):
        try:
            with temporary.open("wb") as file:
                file.write(data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if durable:
            sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """fsync a folder, so that the names in it survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """fsync every file and folder below `folder`, and `folder` itself."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            descriptor = os.open(Path(parent) / name, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_folder(Path(parent))


def publish_folder(temporary: Path, final: Path) -> None:
    """Make the finished folder `temporary` appear as `final`, durably. What was there is deleted last.

    A kill between the two renames leaves the old folder under a name from which `settle` brings it back.
    """
    with disk_errors(final.parent):
        sync_tree(temporary)
        previous = final.parent / f"{PREVIOUS}{final.name}"
        if final.exists():
            final.rename(previous)
        try:
            temporary.rename(final)
        except OSError:
            if previous.exists():
                previous.rename(final)
            raise
        sync_folder(final.parent)
        if previous.exists():
            shutil.rmtree(previous)


def delete_folder(path: Path) -> None:
    """Take the name away in one step, then the content: a kill in between leaves a stray, never half a thing."""
    doomed = temporary_beside(path)
    with disk_errors(path.parent):
        path.rename(doomed)
        sync_folder(path.parent)
        shutil.rmtree(doomed, ignore_errors=True)


def settle(folder: Path, name: str | None = None) -> None:
    """Undo or finish what interrupted writers left in `folder` (about `name` alone, when given).

    The caller must hold whatever lock keeps other writers out.
    """
    if not folder.is_dir():
        return
    for path in [path for path in folder.iterdir() if path.name.startswith(PREVIOUS)]:
        own = path.name.removeprefix(PREVIOUS)
        if name not in (None, own):
            continue
        if (folder / own).exists():
            shutil.rmtree(path)
        else:
            path.rename(folder / own)
    for path in folder.glob(f"{TEMPORARY}{name or '*'}-" + "[0-9a-f]" * 8):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def append_line(path: Path, line: bytes, *, durable: bool = False) -> None:
    """Append `line` and a newline in one write."""
    with disk_errors(path.parent), path.open("ab", buffering=0) as file:
        data = line + b"\n"
        if file.write(data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if durable:
            os.fsync(file.fileno())


def drop_torn_line(path: Path) -> None:
    """Cut what follows the last newline: the trace of a writer that was killed in the middle of a line."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        end = size
        while end > 0:
            start = max(0, end - 65_536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            file.truncate(end)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _existing(path: Path) -> Path:
    """`path`, or the nearest parent that exists."""
    for candidate in (path, *path.absolute().parents):
        if candidate.exists():
            return candidate
    return Path("/")


def read_facts(path: Path, kind: type[F], hint: str = "") -> F:
    """The struct in a file of JSON; UserError with this hint where the file is damaged or not there."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except UNREADABLE as error:
        raise UserError(f"{path} cannot be read: {error}.", hint) from error
