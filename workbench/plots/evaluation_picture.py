"""The plot of an evaluation: a measure along the checkpoints of each run, runs that went on from one another joined."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from stages.store.evaluations import Evaluation, Row
from stages.store.lineage import Stretch
from stages.store.statistics import Share
from workbench.evaluating import value_of
from workbench.plots.picture import FAINT, Key, Picture, figure
from workbench.plots.plot import Curve
from workbench.themes import MARKERS

Ancestries = Mapping[str, Sequence[Stretch]]
"""By name of the run or model: how its checkpoints came to be. A run that is not in it began from nothing."""


class Place(NamedTuple):
    """Where a checkpoint stands."""

    x: float
    row: Row


def picture_of(
    found: Evaluation, measure: str, ancestries: Ancestries | None = None, *, log: bool = False, in_order: bool = False
) -> Picture:
    """A measure against the step, a line for each run; shares in per cent.

    Where a measured run went on from another one, both are on one axis: steps in all, from the first run on, or with
    `in_order` the checkpoints equally far apart. A faint line joins them. A run that is alone has the bounds of its
    intervals drawn faintly.
    """
    known = ancestries or {}
    joints = _joints(found, measure, known)
    lines = _lines(found, measure, known if joints else {}, in_order=in_order and bool(joints))
    kept = {run for joint in joints.items() for run in joint} | {run for run, line in lines.items() if len(line) > 1}
    is_share = any(measure in row.shares for row in found.rows)
    notes = ["log" if log else "", "in order" if in_order and joints else "steps in all" if joints else ""]
    shown = Picture(f"{measure}, %" if is_share else measure, log=log, note=" · ".join(filter(None, notes)))
    shown.across = "" if in_order and joints else "steps"
    drawn = [run for run in lines if run in kept][: len(MARKERS)]
    for role, run in enumerate(drawn):
        points = [(place.x, value_of(place.row, measure) or 0.0) for place in lines[run]]
        if is_share and len(drawn) == 1:
            shown.curves += [
                Curve([(x, 100 * bound(row)) for x, row in lines[run]], FAINT)
                for bound in (lambda row: row.shares[measure].low, lambda row: row.shares[measure].high)
            ]
        if before := _before(lines, known, run, joints.get(run, "")):
            shown.curves.append(Curve([(before.x, value_of(before.row, measure) or 0.0), points[0]], role + FAINT))
        shown.curves += [Curve(points, role), Curve(points, role, MARKERS[role], joined=False)]
        shown.keys.append(Key(MARKERS[role], role, run, figure(points[-1][1])))
    return shown


def few_shot_picture(found: Evaluation, measure: str, *, log: bool = False) -> Picture:
    """The share that is right against the number of examples, a line a checkpoint; a single one with its intervals.

    `measure` is a share of any number of examples: its group, if it has one, is what is plotted.
    """
    group = measure.partition("/")[2]
    lines = {row.checkpoint: line for row in found.rows if (line := _by_shots(row, group))}
    shown = Picture(f"right of {group}, %" if group else "right, %", log=log, note="against examples in the prompt")
    shown.across = "examples"
    for role, (checkpoint, line) in enumerate(list(lines.items())[: len(MARKERS)]):
        if len(lines) == 1:
            shown.curves += [
                Curve([(k, 100 * bound) for k, bound in edge], FAINT)
                for edge in ([(k, share.low) for k, share in line], [(k, share.high) for k, share in line])
            ]
        points = [(k, 100 * (share.value or 0.0)) for k, share in line]
        shown.curves += [Curve(points, role), Curve(points, role, MARKERS[role], joined=False)]
        shown.keys.append(Key(MARKERS[role], role, checkpoint, figure(points[-1][1])))
    return shown


def has_shots(found: Evaluation) -> bool:
    """Whether some checkpoint was measured with several numbers of examples."""
    return any(len(_by_shots(row, "")) > 1 for row in found.rows)


def _by_shots(row: Row, group: str) -> list[tuple[float, Share]]:
    """The shares of a group, or of all, by number of examples."""
    named = {name.partition("-shot")[0]: share for name, share in row.shares.items() if name.partition("/")[2] == group}
    return sorted((float(k), share) for k, share in named.items() if k.isdecimal() and share.value is not None)


def has_line(found: Evaluation, ancestries: Ancestries | None = None) -> bool:
    """Whether some run has several checkpoints here, or went on from another, so that there is something to plot."""
    runs = [_run(row) for row in found.rows if "@" in row.checkpoint]
    return len(set(runs)) < len(runs) or is_joined(found, ancestries)


def is_joined(found: Evaluation, ancestries: Ancestries | None = None) -> bool:
    """Whether one of the measured runs went on from another of them."""
    runs = {_run(row) for row in found.rows}
    return any(stretch.name in runs for run in runs for stretch in (ancestries or {}).get(run, ())[:-1])


def _lines(
    found: Evaluation, measure: str, ancestries: Ancestries, *, in_order: bool = False
) -> dict[str, list[Place]]:
    """By run, the places of the checkpoints that have the measure."""
    lines: dict[str, list[Place]] = defaultdict(list)
    for row in found.rows:
        if value_of(row, measure) is not None:
            before = sum(stretch.step for stretch in ancestries.get(_run(row), ())[:-1])
            lines[_run(row)].append(Place(float(before + row.step), row))
    order = {x: float(number) for number, x in enumerate(sorted({at.x for line in lines.values() for at in line}), 1)}
    return {
        run: sorted((at._replace(x=order[at.x]) if in_order else at for at in line), key=lambda at: at.x)
        for run, line in lines.items()
    }


def _joints(found: Evaluation, measure: str, ancestries: Ancestries) -> dict[str, str]:
    """By run, the nearest measured run that it came from."""
    runs = {_run(row) for row in found.rows if value_of(row, measure) is not None}
    joints = {}
    for run in runs:
        nearest = [stretch.name for stretch in ancestries.get(run, ())[:-1] if stretch.name in runs]
        if nearest:
            joints[run] = nearest[-1]
    return joints


def _before(lines: Mapping[str, list[Place]], ancestries: Ancestries, run: str, parent: str) -> Place | None:
    """The last measured checkpoint of the parent from which, or before which, the run went on."""
    branch = [stretch.step for stretch in ancestries.get(run, ())[:-1] if stretch.name == parent]
    return next((at for at in reversed(lines.get(parent, [])) if branch and at.row.step <= branch[-1]), None)


def _run(row: Row) -> str:
    """The run of a checkpoint, or the name of a model that no run made."""
    return row.checkpoint.rpartition("@")[0] or row.checkpoint
