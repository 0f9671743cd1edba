"""Groups of runs made from one form: a sweep over settings, or a scaling study.

`groups/NAME.json` in the workspace is the plan, written once, before the first run is launched. The runs are ordinary
ones whose spec names the group; how far a group is, is read from them and stored nowhere else.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from stages.store.building import name_lock
from stages.store.errors import UserError
from stages.store.files import disk_errors, read_facts, write_atomic
from stages.store.names import check_name, nearest
from stages.store.rundir import RunDir, list_runs
from stages.store.workspace import Workspace

MOST_RUNS = 100
"""Runs in a group. Each that waits for the device is a process of its own."""

Kind = Literal["sweep", "scale"]


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One run of a group: its name, and the settings in which it differs from the others."""

    name: str
    values: dict[str, Any]
    role: Literal["", "check"] = ""
    """check: a run of a scaling study that is held against the forecast, and not fitted."""


class Group(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What was asked for."""

    name: str
    kind: Kind
    stage: str
    settings: dict[str, Any]
    """Settings that all runs share; those of a member come over them."""
    parents: dict[str, Any] = {}
    """Parents by the names of `launch`'s arguments: dataset, tokenizer, checkpoint, extra."""
    over: dict[str, list[Any]] = {}
    """The settings that vary, each with its values in the order they were given."""
    members: list[Member] = []
    metric: str = "val/loss"
    """What the table is sorted by."""
    form: dict[str, Any] = {}
    """What a scaling study was made from; empty for a sweep."""
    created: float = 0.0
    """Seconds since the epoch, UTC."""
    schema: int = 1


def write_group(workspace: Workspace, group: Group, *, replace: bool = False) -> None:
    """Put the plan on disk. UserError for a name that another group has (unless `replace`), or a plan too large."""
    check_name(group.name, "name of a group of runs")
    if len(group.members) > MOST_RUNS:
        raise UserError(
            f"{len(group.members):,} runs are more than the {MOST_RUNS} that a group may have.",
            "Vary fewer settings, or draw some of the combinations at random.",
        )
    path = workspace.groups / f"{group.name}.json"
    with disk_errors(workspace.groups):
        workspace.groups.mkdir(parents=True, exist_ok=True)
    with name_lock(workspace.groups, group.name) as held:
        if not replace and (not held or path.exists()):
            raise UserError(f"There is already a group of runs {group.name!r}.", "Choose another name.")
        with disk_errors(workspace.groups):
            write_atomic(path, msgspec.json.format(msgspec.json.encode(group), indent=2))


def find_group(workspace: Workspace, name: str) -> Group:
    """The plan of that name; UserError naming the nearest, or saying why it cannot be read."""
    path = workspace.groups / f"{name}.json"
    known = group_names(workspace)
    if name not in known:
        raise UserError(f"There is no group of runs {name!r}.", nearest(name, known))
    return read_facts(path, Group, "Its runs are untouched.")


def group_names(workspace: Workspace) -> list[str]:
    """Names of all groups, in order of the alphabet."""
    return sorted(path.stem for path in workspace.groups.glob("*.json") if not path.name.startswith("."))


def list_groups(workspace: Workspace) -> list[Group]:
    """All groups that can be read, the newest first."""
    found = []
    for name in group_names(workspace):
        try:
            found.append(find_group(workspace, name))
        except UserError:
            continue
    return sorted(found, key=lambda group: -group.created)


def runs_of(workspace: Workspace, group: str) -> dict[str, RunDir]:
    """The runs of a group by their names, as far as they have been launched and not been deleted."""
    found: dict[str, RunDir] = {}
    for run in list_runs(workspace):
        try:
            spec = run.spec()
        except UserError:
            continue
        if spec.group == group:
            found.setdefault(spec.name, run)
    return found


def forget_group(workspace: Workspace, name: str) -> None:
    """Remove the plan; its runs stay, as runs like any other."""
    find_group(workspace, name)
    with disk_errors(workspace.groups):
        (workspace.groups / f"{name}.json").unlink(missing_ok=True)
