"""Steering a group of runs as one, and how far it is: launched, resumed, paused, stopped, and its sorted table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from stages.store.checkpoints import resolve_checkpoint
from stages.store.datasets import find_dataset
from stages.store.errors import UserError
from stages.store.groups import Group, Member, find_group, runs_of, write_group
from stages.store.rundir import RESUMABLE, RunDir, RunState, Status
from stages.store.tokenizers import find_tokenizer
from stages.store.workspace import Workspace
from workbench.plots.figures import last_figures
from workbench.runs import launch, pause, start, stop

HIGHER = ("accuracy", "exact", "f1", "reward", "win", "per_s", "mfu", "agreement")
"""Parts of the names of metrics of which more is better; of all others less is."""


class Standing(NamedTuple):
    """One run of a group as it is now. `run` is None where it was not launched, or has been deleted."""

    member: Member
    run: RunDir | None
    state: RunState | None
    status: Status | None
    figures: Mapping[str, float]

    @property
    def working(self) -> bool:
        return self.status in ("queued", "running")

    @property
    def finished(self) -> bool:
        return self.status == "finished"


def launch_group(workspace: Workspace, group: Group, *, cpu_width: int = 1) -> list[RunDir]:
    """Write the plan and launch all its runs. They wait for the device in the order of the plan."""
    write_group(workspace.ensure(), group)
    return [_launch(workspace, group, member, cpu_width) for member in group.members]


def add_members(workspace: Workspace, group: Group, members: Sequence[Member], *, cpu_width: int = 1) -> Group:
    """The group with further runs, which are launched."""
    grown = msgspec.structs.replace(group, members=[*group.members, *members])
    write_group(workspace, grown, replace=True)
    for member in members:
        _launch(workspace, grown, member, cpu_width)
    return grown


def resume_group(workspace: Workspace, name: str, *, cpu_width: int = 1) -> int:
    """Launch what is missing of a group, and go on with what was paused, stopped, failed or lost; how many runs.

    UserError where what they learn from has been replaced since: half a sweep on other data would compare nothing.
    """
    group = find_group(workspace, name)
    found = runs_of(workspace, name)
    _refuse_replaced(workspace, group, list(found.values()))
    count = 0
    for member in group.members:
        run = found.get(member.name)
        if run is None:
            _launch(workspace, group, member, cpu_width)
        elif run.status() in RESUMABLE:
            start(run, cpu_width=cpu_width)
        else:
            continue
        count += 1
    return count


def stop_group(workspace: Workspace, name: str) -> int:
    """Ask every run of a group that is at work or waits to end; how many there are."""
    return _ask(workspace, name, stop)


def pause_group(workspace: Workspace, name: str) -> int:
    """Ask every run of a group that is at work or waits to pause; how many there are."""
    return _ask(workspace, name, pause)


def standings(workspace: Workspace, group: Group) -> list[Standing]:
    """All runs of a group as they are now, in the order of the plan."""
    found = runs_of(workspace, group.name)
    return [_standing(member, found.get(member.name)) for member in group.members]


def is_higher_better(metric: str) -> bool:
    """Whether more of a metric is better, by its name."""
    return any(part in metric for part in HIGHER)


def ranked(rows: Sequence[Standing], metric: str) -> list[Standing]:
    """The best by `metric` first; those without a rank last, in the order of the plan."""
    sign = -1 if is_higher_better(metric) else 1
    return sorted(rows, key=lambda row: sign * row.figures[metric] if has_rank(row, metric) else math.inf)


def has_rank(row: Standing, metric: str) -> bool:
    """Whether a run takes part in the order: it has logged `metric`, and it has not failed or been lost."""
    return row.status not in ("failed", "lost") and not math.isnan(row.figures.get(metric, math.nan))


def metrics_of(rows: Sequence[Standing]) -> list[str]:
    """Names of all metrics that any of the runs has logged, validation first."""
    names = {name for row in rows for name in row.figures}
    return sorted(names, key=lambda name: (not name.startswith("val/"), name))


def summary(rows: Sequence[Standing]) -> str:
    """How far a group is: `9 runs: 4 finished, 1 running, 4 queued`."""
    counts = Counter(row.status or "not launched" for row in rows)
    states = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    return f"{len(rows)} run{'' if len(rows) == 1 else 's'}: {states}"


def _standing(member: Member, run: RunDir | None) -> Standing:
    if run is None:
        return Standing(member, None, None, None, {})
    try:
        state = run.state()
        return Standing(member, run, state, run.status(state), last_figures(run))
    except (UserError, OSError):
        return Standing(member, None, None, None, {})  # deleted while we looked


def _launch(workspace: Workspace, group: Group, member: Member, cpu_width: int) -> RunDir:
    values = {**group.settings, **member.values}
    return launch(workspace, group.stage, member.name, values, group=group.name, cpu_width=cpu_width, **group.parents)


def _ask(workspace: Workspace, name: str, ask: Callable[[RunDir], None]) -> int:
    """The last in the queue first, or the next would begin as soon as the first had ended."""
    group = find_group(workspace, name)
    found = runs_of(workspace, name)
    count = 0
    for member in reversed(group.members):
        run = found.get(member.name)
        if run is None or run.status() not in ("queued", "running"):
            continue
        try:
            ask(run)
        except UserError:
            continue  # it has ended since
        count += 1
    return count


def _refuse_replaced(workspace: Workspace, group: Group, found: Sequence[RunDir]) -> None:
    for role, digest in _digests(workspace, group.parents).items():
        for run in found:
            parent = run.spec().parents.get(role)
            if parent is not None and parent.digest != digest:
                raise UserError(
                    f"The {role} of {group.name!r} has been replaced since its runs were launched.",
                    "Start a new sweep.",
                )


def _digests(workspace: Workspace, parents: Mapping[str, Any]) -> dict[str, str]:
    digests = {}
    if name := parents.get("dataset"):
        digests["dataset"] = find_dataset(workspace, name).info.digest
    if name := parents.get("tokenizer"):
        digests["tokenizer"] = find_tokenizer(workspace, name).info.digest
    if name := parents.get("checkpoint"):
        digests["checkpoint"] = resolve_checkpoint(workspace, name).digest()
    return digests
