"""What a plot shows: which metrics share it, how each is drawn, and the words above it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from workbench.curves import Curves
from workbench.plot import Curve
from workbench.series import Bucket, outline, smooth, tick_label
from workbench.themes import MARKERS

SMOOTHINGS = (0.0, 0.6, 0.9, 0.97, 0.99)
"""Weights of the moving average, in the order of the keys."""

FAINT = 100
"""Added to the role of a curve that stands behind its smoothed self."""

PARTS = ("train", "val", "eval", "test")
"""Beginnings of names that say on what data a metric was measured."""

MOST_MARKERS = 48
"""A second curve is drawn as at most about so many markers."""

MOST_CURVES = 7


class Group(NamedTuple):
    """Metrics that share a plot: the same measure on different data."""

    title: str
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class Look:
    """How a person wants to see curves."""

    log: bool = False
    smoothing: int = 0

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


def groups(metrics: Sequence[str]) -> list[Group]:
    """Metrics gathered by measure, in the order of their first: train/loss and val/loss are one group."""
    found: dict[str, list[str]] = {}
    for name in metrics:
        part, slash, measure = name.partition("/")
        found.setdefault(measure if slash and part in PARTS else name, []).append(name)
    return [Group(title, tuple(sorted(names, key=_part)[:MOST_CURVES])) for title, names in found.items()]


def picture(curves: Curves, group: Group, look: Look, *, end: float = 0.0) -> Picture:
    """The group's curves, smoothed and marked, with the latest value of each."""
    shown = Picture(group.title, log=look.log, end=end)
    for role, name in enumerate(group.metrics):
        buckets = curves.buckets(name)
        latest = curves.latest(name)
        if not buckets or latest is None:
            continue
        shown.curves += _marked(buckets, role, look.weight) if role else _line(buckets, role, look.weight)
        label = name.partition("/")[0] if len(group.metrics) > 1 else "now"
        shown.keys.append(Key(MARKERS[role] if role else "━", role, label, figure(latest[1])))
    if len(group.metrics) > 1 and shown.keys:
        low = min((bucket.low, bucket.last) for bucket in curves.buckets(group.metrics[-1]))
        shown.keys.append(Key("", -1, "best", f"{figure(low[0])} at {tick_label(low[1])}"))
    shown.note = " · ".join(_notes(look))
    return shown


def figure(value: float) -> str:
    """A measured value in about four digits: 1.512, 0.0003, 52.1k."""
    for unit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= (10 * unit if letter == "k" else unit):
            return f"{value / unit:.4g}{letter}"
    return f"{value:.4g}"


def _line(buckets: list[Bucket], role: int, weight: float) -> list[Curve]:
    if weight <= 0:
        return [Curve(outline(buckets), role)]
    return [Curve(outline(buckets), role + FAINT), Curve(smooth(buckets, weight), role)]


def _marked(buckets: list[Bucket], role: int, weight: float) -> list[Curve]:
    """Single markers, so that curves differ by more than hue; where there are many, some and the last."""
    points = smooth(buckets, weight)
    some = points[:: -(-len(points) // MOST_MARKERS)]
    return [Curve(some if some[-1] == points[-1] else [*some, points[-1]], role, MARKERS[role], joined=False)]


def _notes(look: Look) -> list[str]:
    return (["log"] if look.log else []) + ([f"smoothed {look.weight:g}"] if look.weight else [])


def _part(name: str) -> int:
    part = name.partition("/")[0]
    return PARTS.index(part) if part in PARTS else len(PARTS)
