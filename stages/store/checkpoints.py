"""Checkpoints: model folders that are complete and verified, or not listed at all."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from stages.store.errors import UNREADABLE, UserError
from stages.store.files import (
    delete_folder,
    disk_errors,
    path_of,
    publish_folder,
    read_facts,
    sha256_file,
    temporary_beside,
    write_atomic,
)
from stages.store.hub import cached_model
from stages.store.rundir import Parent, RunDir, find_run
from stages.store.workspace import Workspace

MANIFEST = "manifest.json"
LINEAGE = "workbench.json"
MODEL_FILES = ("config.json", "endpoint.json")
"""What a folder below models/ holds one of: the shape of weights, or the address of somebody else's."""


class FileEntry(msgspec.Struct, frozen=True):
    """A file of a manifest: its size in bytes, and its SHA-256 in hexadecimal."""

    size: int
    sha256: str


class Lineage(msgspec.Struct, kw_only=True, frozen=True):
    """workbench.json: where a checkpoint comes from and how good it is."""

    stage: str
    run: str
    name: str
    step: int
    parents: dict[str, Parent] = {}
    settings: dict[str, Any] = {}
    metrics: dict[str, float] = {}
    tokens_seen: int = 0
    created: float = 0.0
    schema: int = 1


class Checkpoint(NamedTuple):
    """A listed checkpoint: manifest and sizes agree."""

    path: Path
    step: int

    @property
    def name(self) -> str:
        """The folder's, such as step-400."""
        return self.path.name

    def lineage(self) -> Lineage | None:
        """workbench.json, or None for a folder that others wrote."""
        path = self.path / LINEAGE
        if not path.exists():
            return None
        lineage = read_facts(path, Lineage)
        if len(self.path.parents) < 4:
            return lineage
        root = self.path.parents[3]  # of the workspace, where this is runs/<run>/checkpoints/<step>
        parents = {role: parent.at_home(root) for role, parent in lineage.parents.items()}
        return msgspec.structs.replace(lineage, parents=parents)

    def title(self) -> str:
        """As people write it: `run@step`, or the folder's name where no run's step made it."""
        lineage = self.lineage()
        return f"{lineage.name}@{lineage.step}" if lineage and lineage.step else self.path.name

    def trained(self) -> int:
        """Steps of the run that made it; 0 for a folder that others wrote."""
        lineage = self.lineage()
        return lineage.step if lineage else 0

    def digest(self) -> str:
        """Names the checkpoint's content: the SHA-256 of its manifest."""
        return sha256_file(self.path / MANIFEST)


def write_checkpoint(final: Path, fill: Callable[[Path], None]) -> Checkpoint:
    """Write a folder with `fill`, add its manifest, make it durable, and give it its name in one rename."""
    temporary = temporary_beside(final)
    try:
        with disk_errors(final.parent):
            temporary.mkdir(parents=True)
            fill(temporary)
            write_manifest(temporary)
        publish_folder(temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return Checkpoint(final, step_of(final))


def write_manifest(folder: Path) -> None:
    """Record size and SHA-256 of every file below `folder`."""
    entries = {
        path.relative_to(folder).as_posix(): FileEntry(path.stat().st_size, sha256_file(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    write_atomic(folder / MANIFEST, msgspec.json.format(msgspec.json.encode({"files": entries}), indent=1))


def list_checkpoints(run: RunDir) -> list[Checkpoint]:
    """The run's checkpoints whose manifest and sizes agree, oldest first."""
    if not run.checkpoints.is_dir():
        return []
    found = [Checkpoint(path, step_of(path)) for path in run.checkpoints.glob("step-*") if _sizes_agree(path)]
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def verify(checkpoint: Path) -> None:
    """Check every digest; UserError naming the first file that differs. Folders that others wrote have no manifest."""
    if not (checkpoint / MANIFEST).exists():
        return
    name = MANIFEST
    try:
        for name, entry in _entries(checkpoint).items():
            path = checkpoint / name
            if path.stat().st_size != entry.size or sha256_file(path) != entry.sha256:
                raise _damaged(checkpoint, f"{name} is not what was written")
    except FileNotFoundError as error:
        raise _damaged(checkpoint, f"{name} is missing") from error
    except UNREADABLE as error:
        raise _damaged(checkpoint, f"{name} cannot be read ({error})") from error


def _damaged(checkpoint: Path, what: str) -> UserError:
    return UserError(f"The checkpoint {checkpoint} is damaged: {what}.", "Use the checkpoint before it.")


def latest_verified(run: RunDir) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint whose digests hold, and a sentence for each newer one that was refused."""
    refused = []
    for checkpoint in reversed(list_checkpoints(run)):
        try:
            verify(checkpoint.path)
        except UserError as error:
            refused.append(error.title)
            continue
        return checkpoint, refused
    return None, refused


def resolve_checkpoint(workspace: Workspace, text: str) -> Checkpoint:
    """CKPT as people write it: a run's name (its last checkpoint), `run@step`, an imported model, or a folder.

    A folder may also be named by the id (org/name) of a model in the local Hugging Face cache.
    """
    folder = path_of(text)
    if ("/" in text or text.startswith(("~", "."))) and folder.is_dir():
        return Checkpoint(folder.absolute(), step_of(folder))
    cached = cached_model(text)
    if cached is not None:
        return Checkpoint(cached, 0)
    if "/" not in text and any((workspace.models / text / each).is_file() for each in MODEL_FILES):
        return Checkpoint(workspace.models / text, 0)
    name, _, step = text.partition("@")
    run = find_run(workspace, name)
    found = list_checkpoints(run)
    if not found:
        raise UserError(f"The run {name!r} has no checkpoint yet.", "Let it train until its first checkpoint.")
    if not step:
        return found[-1]
    for checkpoint in found:
        if str(checkpoint.step) == step:
            return checkpoint
    steps = ", ".join(str(checkpoint.step) for checkpoint in found)
    raise UserError(f"The run {name!r} has no checkpoint at step {step}.", f"It has: {steps}.")


class Best(NamedTuple):
    """By what a run's best checkpoint is told: the lowest or `highest` figure of `metric` in its lineage.

    within: another metric, and what it may come to at most; where no checkpoint keeps to that, it does not count.
    """

    metric: str = "val/loss"
    highest: bool = False
    within: tuple[str, float] | None = None

    def allows(self, metrics: Mapping[str, float]) -> bool:
        """Whether these figures keep to the limit."""
        return self.within is None or metrics.get(self.within[0], 0.0) <= self.within[1]

    def rank(self, metrics: Mapping[str, float]) -> float:
        """The lower, the better."""
        return -metrics[self.metric] if self.highest else metrics[self.metric]


def prune(run: RunDir, best: Best | None = None, keep_last: int = 2) -> list[Checkpoint]:
    """Delete all but the last two verified checkpoints and the best; what was deleted.

    Nothing is deleted before `keep_last` newer ones have been verified by digest.
    """
    found = list_checkpoints(run)
    kept: set[int] = set()
    for checkpoint in reversed(found):
        if len(kept) == keep_last:
            break
        try:
            verify(checkpoint.path)
        except UserError:
            continue
        kept.add(checkpoint.step)
    if len(kept) < keep_last:
        return []
    finest = best_checkpoint(run, best)
    if finest is not None:
        kept.add(finest.step)
    doomed = [checkpoint for checkpoint in found if checkpoint.step not in kept and checkpoint.step < max(kept)]
    for checkpoint in doomed:
        delete_folder(checkpoint.path)
    return doomed


def best_checkpoint(run: RunDir, best: Best | None = None) -> Checkpoint | None:
    """The best checkpoint, by validation loss if nothing else is said; None when none can be read that records it."""
    best = best or Best()
    scored = []
    for checkpoint in list_checkpoints(run):
        with contextlib.suppress(UserError):
            lineage = checkpoint.lineage()
            if lineage is not None and best.metric in lineage.metrics:
                over = not best.allows(lineage.metrics)
                scored.append((over, best.rank(lineage.metrics), -checkpoint.step, checkpoint))
    return min(scored)[-1] if scored else None


def _entries(folder: Path) -> dict[str, FileEntry]:
    class Manifest(msgspec.Struct):
        files: dict[str, FileEntry]

    return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest).files


def _sizes_agree(folder: Path) -> bool:
    try:
        entries = _entries(folder)
        return all((folder / name).stat().st_size == entry.size for name, entry in entries.items())
    except UNREADABLE:
        return False


def step_of(folder: Path) -> int:
    """The step that the name of a checkpoint's folder tells; 0 for other folders."""
    prefix, _, number = folder.name.rpartition("-")
    return int(number) if prefix == "step" and number.isdecimal() else 0
