"""What was made from what: parents and children by digest, and deletion that refuses while something is needed.

A tokenizer names the dataset it was trained on; a run pins dataset, tokenizer, the checkpoint it started from and
those it has beside it, such as a teacher. The run that built a dataset or a tokenizer, or that measured a model, is a
record of the work: once it has ended it needs nothing.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from stages.store.bin import throw
from stages.store.building import name_lock
from stages.store.checkpoints import Checkpoint, list_checkpoints, step_of
from stages.store.datasets import find_dataset
from stages.store.errors import UserError
from stages.store.files import disk_errors
from stages.store.labels import open_labels
from stages.store.models import find_model
from stages.store.rundir import Parent, RunDir, RunSpec, find_run, list_runs
from stages.store.specs import TRAINING
from stages.store.specs.parents import DATASETS, is_checkpoint
from stages.store.tokenizers import find_tokenizer, list_tokenizers
from stages.store.workspace import Workspace


class Child(NamedTuple):
    """Something that was made from another thing and needs it."""

    kind: Literal["tokenizer", "run"]
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r}"


class Ancestor(NamedTuple):
    """A parent as it was pinned, and whether the workspace still holds that very content."""

    role: str
    name: str
    digest: str
    state: Literal["present", "changed", "gone"]


class Stretch(NamedTuple):
    """A run on the way to a checkpoint, and its step at which the next one goes on, or at which the checkpoint is."""

    stage: str
    name: str
    step: int


def ancestry(folder: Path) -> list[Stretch]:
    """How a checkpoint came to be: the runs that went on from one another, the first one first, itself last.

    Of one that is gone the path tells its step, and its run the rest. An imported model begins without steps.
    """
    found: list[Stretch] = []
    seen: set[Path] = set()
    at: Path | None = folder
    while at is not None and at not in seen:
        seen.add(at)
        stretch, parents = _stretch(at)
        found.append(stretch)
        at = Path(parents["checkpoint"].name) if "checkpoint" in parents else None
    return found[::-1]


def _stretch(folder: Path) -> tuple[Stretch, dict[str, Parent]]:
    try:
        lineage = Checkpoint(folder, 0).lineage()
    except UserError:
        lineage = None
    if lineage is not None:
        return Stretch(lineage.stage, lineage.name, lineage.step), lineage.parents
    try:
        spec = RunDir(folder.parent.parent).spec()
    except UserError:
        return Stretch("", folder.name, 0), {}
    return Stretch(spec.stage, spec.name, step_of(folder)), spec.parents


def parents_of(workspace: Workspace, parents: dict[str, Parent]) -> list[Ancestor]:
    """The parents that a run or checkpoint records, by role, each compared with what the workspace holds now."""
    return [
        Ancestor(role, parent.name, parent.digest, _compare(_digest_now(workspace, role, parent.name), parent.digest))
        for role, parent in parents.items()
    ]


def children_of_dataset(workspace: Workspace, name: str) -> list[Child]:
    """Tokenizers trained on the dataset, and runs that train on it."""
    digest = find_dataset(workspace, name).info.digest
    trained = [
        Child("tokenizer", tokenizer.name)
        for tokenizer in list_tokenizers(workspace)
        if (tokenizer.info.dataset, tokenizer.info.dataset_digest) == (name, digest)
    ]
    return trained + _runs_that_pin(workspace, DATASETS, Parent(name, digest))


def children_of_tokenizer(workspace: Workspace, name: str) -> list[Child]:
    """Runs whose model speaks in the tokenizer's tokens."""
    return _runs_that_pin(workspace, ("tokenizer",), Parent(name, find_tokenizer(workspace, name).info.digest))


def children_of_model(workspace: Workspace, name: str) -> list[Child]:
    """Runs that go on from an imported model, or have it for teacher, reward model or reference."""
    digest = find_model(workspace, name).digest()
    return [
        Child("run", spec.name)
        for run, spec in _specs(workspace)
        if any(parent.digest == digest for parent in _checkpoints(run, spec))
    ]


def children_of_run(workspace: Workspace, run: RunDir) -> list[Child]:
    """Runs that were made from one of the run's checkpoints, in whatever role; from pruned ones too."""
    digests = {checkpoint.digest() for checkpoint in list_checkpoints(run)}
    return [
        Child("run", spec.name)
        for other, spec in _specs(workspace)
        if other.id != run.id
        and any(
            parent.digest in digests or run.path in Path(parent.name).parents for parent in _checkpoints(other, spec)
        )
    ]


def children_of_checkpoint(workspace: Workspace, run: RunDir, checkpoint: Checkpoint) -> list[Child]:
    """Other runs that were made from one checkpoint of the run, in whatever role."""
    digest = checkpoint.digest()
    return [
        Child("run", spec.name)
        for other, spec in _specs(workspace)
        if other.id != run.id and any(parent.digest == digest for parent in _checkpoints(other, spec))
    ]


def delete_dataset(workspace: Workspace, name: str) -> None:
    """Throw a dataset into the bin. Raises UserError naming what needs it, or when it is being built."""
    path = find_dataset(workspace, name).path
    with _not_building(path, "dataset"):
        _refuse_if_needed(f"The dataset {name!r}", children_of_dataset(workspace, name))
        throw(workspace, path)


def delete_tokenizer(workspace: Workspace, name: str) -> None:
    """Throw a tokenizer into the bin. Raises UserError naming the runs that need it, or when it is being built."""
    path = find_tokenizer(workspace, name).path
    with _not_building(path, "tokenizer"):
        _refuse_if_needed(f"The tokenizer {name!r}", children_of_tokenizer(workspace, name))
        throw(workspace, path)


def delete_model(workspace: Workspace, name: str) -> None:
    """Throw a model into the bin. Raises UserError naming the runs that need it, or when it is being imported anew."""
    path = find_model(workspace, name).path
    with _not_building(path, "model"):
        _refuse_if_needed(f"The model {name!r}", children_of_model(workspace, name))
        throw(workspace, path)


def delete_run(workspace: Workspace, name: str, run: RunDir | None = None) -> None:
    """Throw a run with its checkpoints into the bin: by name or id, or this very `run`, whatever else has its name now.

    Raises UserError while it is at work or something needs it.
    """
    run = run or find_run(workspace, name)
    _refuse_if_needed(f"The run {name!r}", children_of_run(workspace, run))
    descriptor = run.acquire()
    try:
        if descriptor is None or _at_work_elsewhere(run):
            raise UserError(f"The run {name!r} is at work.", "Stop it first.")
        throw(workspace, run.path)
    finally:
        if descriptor is not None:
            os.close(descriptor)


def delete_checkpoint(workspace: Workspace, run: RunDir, step: int) -> None:
    """Throw one checkpoint of a run into the bin. Resuming goes on from the last of those that stay.

    Raises UserError while the run is at work, where it has no such checkpoint, or when another run needs it.
    """
    name = run.spec().name
    with run.held(f"The run {name!r} is at work.", "Pause or stop it first."):
        if _at_work_elsewhere(run):
            raise UserError(f"The run {name!r} is at work.", "Pause or stop it first.")
        chosen = checkpoint_at(run, step)
        _refuse_if_needed(f"The checkpoint {name}@{step}", children_of_checkpoint(workspace, run, chosen))
        left = [each for each in list_checkpoints(run) if each.step != step]
        state = run.state()
        state.last_checkpoint = left[-1].name if left else None
        run.write_state(state, durable=True)  # first: a kill in between leaves the checkpoint, which resuming finds
        throw(workspace, chosen.path, f"{run.id}@{step}")
        run.append_event("deleted a checkpoint", step=step)


def checkpoint_at(run: RunDir, step: int) -> Checkpoint:
    """The run's checkpoint of a step; UserError naming those that there are otherwise."""
    found = list_checkpoints(run)
    chosen = next((checkpoint for checkpoint in found if checkpoint.step == step), None)
    if chosen is None:
        steps = ", ".join(str(checkpoint.step) for checkpoint in found) or "none"
        raise UserError(f"The run {run.spec().name!r} has no checkpoint at step {step}.", f"It has: {steps}.")
    return chosen


def told_before_deleting(workspace: Workspace, run: RunDir, step: int) -> str:
    """What deleting a checkpoint means, for people: its size, the labels of its answers, where resuming goes on.

    Raises UserError where it cannot be deleted because other runs need it.
    """
    chosen, title = checkpoint_at(run, step), f"{run.spec().name}@{step}"
    _refuse_if_needed(f"The checkpoint {title}", children_of_checkpoint(workspace, run, chosen))
    size = sum(path.stat().st_size for path in chosen.path.rglob("*") if path.is_file())
    said = [f"{size / 1e6:,.1f} MB go into the bin, from which it can be taken back."]
    if sets := _sets_with(workspace, title):
        named = ", ".join(sets[:5]) + (" …" if sets[5:] else "")
        said.append(f"Its answers stay in the label {'sets' if len(sets) > 1 else 'set'} {named}.")
    found = list_checkpoints(run)
    if len(found) == 1:
        said.append("It is the run's only checkpoint: nothing is left to go on from.")
    elif chosen == found[-1]:
        before = f"{found[-2].step:,}"
        said.append(f"It is the last one: from now on the run goes on from step {before}, and its name means that one.")
    return " ".join(said)


def _sets_with(workspace: Workspace, title: str) -> list[str]:
    if not workspace.labels.is_file():
        return []
    with open_labels(workspace.labels) as labels:
        return labels.sets_with(title)


def _runs_that_pin(workspace: Workspace, roles: Collection[str], wanted: Parent) -> list[Child]:
    return [
        Child("run", spec.name)
        for run, spec in _specs(workspace)
        if any(spec.parents.get(role) == wanted for role in roles) and (spec.stage in TRAINING or _at_work(run))
    ]


def _checkpoints(run: RunDir, spec: RunSpec) -> list[Parent]:
    """The checkpoints that a run needs: all it was made from when it trains, none when it has only looked at them."""
    if spec.stage not in TRAINING and not _at_work(run):
        return []
    return [parent for role, parent in spec.parents.items() if is_checkpoint(role)]


def _specs(workspace: Workspace) -> Iterator[tuple[RunDir, RunSpec]]:
    for run in list_runs(workspace):
        try:
            yield run, run.spec()
        except UserError:
            continue


def _at_work(run: RunDir) -> bool:
    return run.alive() or _at_work_elsewhere(run)


def _at_work_elsewhere(run: RunDir) -> bool:
    """Whether a worker on another host has the run, as far as its heartbeat tells."""
    try:
        state = run.state()
    except UserError:
        return False
    return state.host not in ("", socket.gethostname()) and run.status(state) in ("queued", "running")


def _digest_now(workspace: Workspace, role: str, name: str) -> str | None:
    try:
        if role in DATASETS:
            return find_dataset(workspace, name).info.digest
        if role == "tokenizer":
            return find_tokenizer(workspace, name).info.digest
        return Checkpoint(Path(name), 0).digest()
    except (UserError, OSError):
        return None


def _compare(now: str | None, pinned: str) -> Literal["present", "changed", "gone"]:
    if now is None:
        return "gone"
    return "present" if now == pinned else "changed"


def _refuse_if_needed(what: str, children: list[Child]) -> None:
    if children:
        shown = [str(child) for child in children[:8]] + ([f"{len(children) - 8} more"] if len(children) > 8 else [])
        raise UserError(f"{what} is needed by {', '.join(shown)}.", "Delete what needs it first, or keep it.")


@contextmanager
def _not_building(path: Path, what: str) -> Iterator[None]:
    """Hold the lock that builders of this name hold; UserError when one of them has it."""
    with disk_errors(path.parent), name_lock(path.parent, path.name) as held:
        if not held:
            raise UserError(f"The {what} {path.name!r} is being built anew.", "Wait for it, or stop it.")
        yield
