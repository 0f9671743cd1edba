"""Doing a run again: exactly, from the very same parents, or with changes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.store.checkpoints import resolve_checkpoint, step_of
from stages.store.errors import UserError
from stages.store.lineage import parents_of
from stages.store.rundir import RunDir, RunSpec
from stages.store.specs import TRAINING
from stages.store.specs.parents import extra_parents, is_checkpoint
from stages.store.workspace import Workspace
from workbench.evaluating import names_of_runs
from workbench.runs import launch, run_names, unique_name

RAW = ("build", "importing")
"""Stages that read what lies outside the workspace: their sources are not pinned, so a repetition may differ."""


def repeat(
    workspace: Workspace, run: RunDir, changes: Mapping[str, Any] | None = None, *, name: str = "", cpu_width: int = 1
) -> RunDir:
    """Launch a run's stage again with its settings, seed and parents, and with `changes` of its settings.

    The new name is `name`, or the old one with a number. Raises UserError when a parent is gone or has changed since.
    """
    spec = run.spec()
    if spec.stage in RAW:
        raise UserError(f"{spec.name!r} was made from files outside the workspace.", "Build or import it anew.")
    for ancestor in parents_of(workspace, spec.parents):
        if ancestor.state != "present":
            sentence = f"The {ancestor.role} {ancestor.name!r} is {_how(ancestor.state)}."
            raise UserError(sentence, "The run cannot be repeated exactly; start another one.")
    chosen = name or unique_name(_names(workspace, spec), _stem(spec.name))
    settings = {**spec.settings, **(changes or {})}
    return launch(workspace, spec.stage, chosen, settings, cpu_width=cpu_width, **_parents(spec))


def form_values(workspace: Workspace, run: RunDir) -> dict[str, Any]:
    """What the start form of the run's stage is filled with, to do it again with a change."""
    spec = run.spec()
    values = {**spec.settings, "name": unique_name(_names(workspace, spec), _stem(spec.name))}
    fields = {one.role: one.field for one in extra_parents(spec.stage)}
    for role, parent in spec.parents.items():
        if not _numbered(role):
            values[fields.get(role, role)] = readable(workspace, parent.name) if is_checkpoint(role) else parent.name
    if several := _several(spec):
        values["checkpoints"] = ", ".join(readable(workspace, path) for path in several)
    return values


def readable(workspace: Workspace, path: str) -> str:
    """A checkpoint as people write it, where it is one of the workspace's: run@step or a model's name."""
    folder = Path(path)
    for text in (folder.name, f"{_run_name(folder)}@{step_of(folder)}"):
        try:
            if resolve_checkpoint(workspace, text).path == folder:
                return text
        except UserError:
            continue
    return path


def _run_name(checkpoint: Path) -> str:
    try:
        return RunDir(checkpoint.parent.parent).spec().name
    except UserError:
        return ""


def _parents(spec: RunSpec) -> dict[str, Any]:
    """The parents as `launch` takes them."""
    extra = {one.role for one in extra_parents(spec.stage)}
    single = ("dataset", "tokenizer", "checkpoint")
    found: dict[str, Any] = {role: parent.name for role, parent in spec.parents.items() if role in single}
    found["checkpoints"] = _several(spec)
    found["extra"] = {role: parent.name for role, parent in spec.parents.items() if role in extra}
    return found


def _several(spec: RunSpec) -> list[str]:
    """The checkpoints of a stage that looks at several, in their order."""
    roles = sorted(filter(_numbered, spec.parents), key=lambda role: int(role.partition("-")[2]))
    return [spec.parents[role].name for role in roles]


def _numbered(role: str) -> bool:
    return role.startswith("checkpoint-")


def _names(workspace: Workspace, spec: RunSpec) -> set[str]:
    return run_names(workspace) if spec.stage in TRAINING else names_of_runs(workspace)


def _stem(name: str) -> str:
    """The name without the number that an earlier repetition gave it."""
    stem, dash, number = name.rpartition("-")
    return stem if dash and number.isdecimal() and stem and int(number) > 1 else name


def _how(state: str) -> str:
    return {"gone": "gone", "changed": "not what it was then"}[state]
