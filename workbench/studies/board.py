"""Groups of runs looked at again and again: plans, specs and figures are read only when their files have changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from stages.store.errors import UserError
from stages.store.groups import Group, find_group, group_names
from stages.store.rundir import RunDir
from stages.store.workspace import Workspace
from workbench.board.run_board import Board, Entry
from workbench.plots.figures import last_figures
from workbench.studies.groups import Standing

Stamp = tuple[int, int, int]


class Counted(NamedTuple):
    """A group with how many of its runs have finished, and how many work or wait."""

    group: Group
    finished: int
    working: int


class GroupBoard:
    """One workspace's groups. For one thread at a time."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._board = Board(workspace)
        self._plans: dict[str, tuple[Stamp, Group]] = {}
        self._figures: dict[str, tuple[Stamp, Mapping[str, float]]] = {}

    def look(self, chosen: str) -> tuple[list[Counted], Group | None, list[Standing]]:
        """All groups, the newest first; the one that is chosen, or the first; and its runs in the order of the plan."""
        entries: dict[str, dict[str, Entry]] = {}
        for entry in self._board.look():
            if entry.spec.group:
                entries.setdefault(entry.spec.group, {}).setdefault(entry.spec.name, entry)
        plans = sorted(self._read_plans(), key=lambda group: -group.created)
        counts = [_counted(group, entries.get(group.name, {})) for group in plans]
        group = next((group for group in plans if group.name == chosen), plans[0] if plans else None)
        if group is None:
            return counts, None, []
        found = entries.get(group.name, {})
        return counts, group, [self._standing(group, place, found) for place in range(len(group.members))]

    def _read_plans(self) -> list[Group]:
        plans: dict[str, tuple[Stamp, Group]] = {}
        for name in group_names(self._workspace):
            stamp = _stamp(self._workspace.groups / f"{name}.json")
            known = self._plans.get(name)
            try:
                plans[name] = known if known and known[0] == stamp else (stamp, find_group(self._workspace, name))
            except UserError:
                continue  # the command line says why; here the others go on
        self._plans = plans
        return [group for _, group in plans.values()]

    def _standing(self, group: Group, place: int, found: Mapping[str, Entry]) -> Standing:
        member = group.members[place]
        entry = found.get(member.name)
        if entry is None:
            return Standing(member, None, None, None, {})
        return Standing(member, entry.run, entry.state, entry.status, self._figures_of(entry.run))

    def _figures_of(self, run: RunDir) -> Mapping[str, float]:
        stamp = _stamp(run.metrics)
        known = self._figures.get(run.id)
        if known is None or known[0] != stamp:
            known = self._figures[run.id] = (stamp, last_figures(run))
        return known[1]


def _counted(group: Group, found: Mapping[str, Entry]) -> Counted:
    entries = [found[member.name] for member in group.members if member.name in found]
    return Counted(group, sum(entry.status == "finished" for entry in entries), sum(entry.live for entry in entries))


def _stamp(path: Path) -> Stamp:
    """Changes when the file does; zeros where there is none."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0, 0
    return status.st_mtime_ns, status.st_size, status.st_ino
