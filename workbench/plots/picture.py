"""What a plot shows: which metrics share it, how each is drawn, and the words above it."""

from __future__ import annotations

import bisect
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from workbench.plots.curves import Track
from workbench.plots.plot import Curve
from workbench.plots.scope import COUNTED, EVERYTHING, WHOLE, Range, Scope, range_text
from workbench.plots.series import Bucket, clipped, fewer, figure, outline, smooth, tick_label
from workbench.themes import MARKERS
from workbench.wording import operations

SMOOTHINGS = (0.0, 0.6, 0.9, 0.97, 0.99)
"""Weights of the moving average, in the order of the keys."""

FAINT = 100
"""Added to the role of a curve that stands behind its smoothed self."""

PARTS = ("train", "val", "eval", "test")
"""Beginnings of names that say on what data a metric was measured."""

PER_TOKEN = ("pretrain", "bert", "t5", "transformer_xl", "seq2seq", "sft")
"""Stages whose loss is the cross-entropy of a token."""

MOST_MARKERS = 48
"""A second curve is drawn as at most about so many markers."""

MOST_CURVES = 7

MOST_BUCKETS = 720
"""Of all runs on a plot together, so that a frame of eight takes little longer than one of three."""

SIGNS = 8
"""Markers along the line of each of several runs."""

PLAIN = 50
"""Role of a run among others that has no colour of its own: the one under the cursor."""


class Group(NamedTuple):
    """Metrics that share a plot: the same measure on different data."""

    title: str
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class Look:
    """How a person wants to see curves."""

    log: bool = False
    smoothing: int = 0
    scope: Scope = EVERYTHING

    @property
    def weight(self) -> float:
        return SMOOTHINGS[self.smoothing]

    def smoother(self, by: int) -> Look:
        """The look with the smoothing `by` places further."""
        return replace(self, smoothing=min(len(SMOOTHINGS) - 1, max(0, self.smoothing + by)))

    def toggled_log(self) -> Look:
        return replace(self, log=not self.log)


class Key(NamedTuple):
    """One entry of the line above the plot."""

    marker: str
    role: int
    name: str
    value: str


class Shown(NamedTuple):
    """One of several runs on a plot."""

    name: str
    track: Track
    role: int
    marker: str
    """`━` for a line without markers."""


@dataclass
class Picture:
    """All that a plot needs: a title, the key, curves, and the last x there will be (0: not known)."""

    title: str = ""
    keys: list[Key] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    log: bool = False
    note: str = ""
    end: float = 0.0
    empty: str = ""
    """What to say when there is nothing to draw."""
    scope: Scope = EVERYTHING
    across: str = ""
    """What x counts, where the title does not say it."""
    unit: str = ""
    """Of the values, where the measure's name does not say it."""


def groups(metrics: Sequence[str]) -> list[Group]:
    """Metrics gathered by measure, in the order of their first: train/loss and val/loss are one group."""
    found: dict[str, list[str]] = {}
    for name in metrics:
        part, slash, measure = name.partition("/")
        found.setdefault(measure if slash and part in PARTS else name, []).append(name)
    return [Group(title, tuple(sorted(names, key=_part)[:MOST_CURVES])) for title, names in found.items()]


def unit_of(title: str, stages: Collection[str]) -> str:
    """The unit of a group of metrics or of one, of runs of these stages; empty where its name says it."""
    return "nats a token" if title.rpartition("/")[2] == "loss" and stages and set(stages) <= {*PER_TOKEN} else ""


def latest_text(metric: str, value: float) -> str:
    """A metric's value in about four digits, compute as operations."""
    return operations(value) if metric == "compute" else figure(value)


def apart(metrics: Sequence[str]) -> list[Group]:
    """Every metric for itself: how several runs are compared."""
    return [Group(name, (name,)) for name in metrics]


def picture(track: Track, group: Group, look: Look, *, end: float = 0.0) -> Picture:
    """The group's curves of one run, smoothed and marked, with the latest value of each."""
    shown = Picture(group.title, log=look.log, end=_end(look, end), scope=look.scope, across=COUNTED[look.scope.axis])
    for role, name in enumerate(group.metrics):
        buckets = _buckets(track, name, look.scope)
        latest = track.whole.latest(name)
        if not buckets or latest is None:
            continue
        shown.curves += _marked(buckets, role, look) if role else _line(buckets, role, look)
        label = name.partition("/")[0] if len(group.metrics) > 1 else "now"
        shown.keys.append(Key(MARKERS[role] if role else "━", role, label, latest_text(name, latest[1])))
    if len(group.metrics) > 1 and shown.keys:
        low = min((bucket.low, bucket.last) for bucket in track.whole.buckets(group.metrics[-1]))
        shown.keys.append(Key("", -1, "best", f"{figure(low[0])} at {tick_label(low[1])}"))
    shown.note = " · ".join(_notes(look))
    return shown


def overlay(runs: Sequence[Shown], metric: str, look: Look, *, end: float = 0.0) -> Picture:
    """One metric of several runs: a line for each in its own colour, with its marker here and there."""
    shown = Picture(metric, log=look.log, end=_end(look, end), scope=look.scope, across=COUNTED[look.scope.axis])
    signs: list[Curve] = []
    for place, run in enumerate(runs):
        latest = run.track.whole.latest(metric)
        shown.keys.append(Key(run.marker, run.role, run.name, latest_text(metric, latest[1]) if latest else "–"))
        buckets = fewer(_buckets(run.track, metric, look.scope), max(MOST_BUCKETS // len(runs), 60))
        line = smooth(buckets, look.weight) if look.weight > 0 else outline(buckets)
        shown.curves.append(Curve(_inside(line, look.scope.range), run.role))
        if run.marker in MARKERS:
            points = _inside(smooth(buckets, look.weight), look.scope.range)
            signs.append(Curve(_spread(points, place / len(runs)), run.role, run.marker, joined=False))
    shown.curves += signs
    without = sum(not run.track.whole.has(look.scope.axis) for run in runs)
    missing = [f"{without} of {len(runs)} logged no {look.scope.axis}"] if without else []
    shown.note = " · ".join([*_notes(look), *missing])
    return shown


def _buckets(track: Track, metric: str, scope: Scope) -> list[Bucket]:
    return track.curves().buckets(metric, scope.axis, track.whole.began)


def _line(buckets: list[Bucket], role: int, look: Look) -> list[Curve]:
    range_ = look.scope.range
    if look.weight <= 0:
        return [Curve(_inside(outline(buckets), range_), role)]
    return [
        Curve(_inside(outline(buckets), range_), role + FAINT),
        Curve(_inside(smooth(buckets, look.weight), range_), role),
    ]


def _marked(buckets: list[Bucket], role: int, look: Look) -> list[Curve]:
    """Single markers, so that curves differ by more than hue; where there are many, some and the last."""
    range_ = look.scope.range
    points = [(x, y) for x, y in smooth(buckets, look.weight) if _holds(range_, x)]
    some = points[:: max(1, -(-len(points) // MOST_MARKERS))]
    return [Curve(some if some[-1:] == points[-1:] else [*some, points[-1]], role, MARKERS[role], joined=False)]


def _inside(line: list[tuple[float, float]], range_: Range) -> list[tuple[float, float]]:
    """The part of a line that a range shows."""
    if range_ == WHOLE:
        return line
    left, right = range_
    return clipped(line, -math.inf if left is None else left, math.inf if right is None else right)


def _holds(range_: Range, x: float) -> bool:
    return (range_.left is None or range_.left <= x) and (range_.right is None or x <= range_.right)


def _spread(points: list[tuple[float, float]], shift: float) -> list[tuple[float, float]]:
    """Up to SIGNS points equally far apart in x, those of another `shift` (0 to 1) between them."""
    if not points:
        return []
    left, width = points[0][0], (points[-1][0] - points[0][0]) / SIGNS
    wanted = [left + width * (number + shift) for number in range(SIGNS)]
    xs = [x for x, _ in points]
    return [points[at] for at in sorted({min(bisect.bisect_left(xs, x), len(xs) - 1) for x in wanted})]


def _end(look: Look, end: float) -> float:
    """The last step there will be, where steps are what is drawn against."""
    return end if look.scope.axis == "steps" else 0.0


def _notes(look: Look) -> list[str]:
    axis, range_ = look.scope
    notes = [
        "log" if look.log else "",
        f"smoothed {look.weight:g}" if look.weight else "",
        f"against {axis}" if axis != "steps" else "",
        range_text(range_, axis),
    ]
    return [note for note in notes if note]


def _part(name: str) -> int:
    part = name.partition("/")[0]
    return PARTS.index(part) if part in PARTS else len(PARTS)
