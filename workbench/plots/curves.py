"""The curves of one run: its metrics.jsonl as a series for every metric, kept up to date by a thread."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

from stages.store.rundir import RunDir
from workbench.follow import CHUNK, RowFollower
from workbench.plots.scope import EVERYTHING, WHOLE, Axis, Scope
from workbench.plots.series import CAPACITY, Bucket, Scale, Series

NOT_METRICS = frozenset({"step", "time", "rewind_to"})

LARGEST = 2**53
"""Whole numbers beyond it are no steps and no values: a float cannot hold them."""

EVERYWHERE = (-math.inf, math.inf)

FINE = CAPACITY // 2
"""Buckets in view that are enough: reading once more would at best double them."""

MOST_METRICS = 256
"""Metrics that are kept; a file with more different keys than this is no log of ours."""


class Curves:
    """Series by metric. `catch_up` may run in a thread; every other method is safe to call meanwhile.

    With `within`, only the rows whose step is from the first to the second of it count.
    """

    def __init__(self, path: Path, within: tuple[float, float] = EVERYWHERE) -> None:
        self.within = within
        self._follower = RowFollower(path)
        self._lock = threading.Lock()
        self._series: dict[str, Series] = {}
        self._clock = Series()
        self.version = 0
        """Grows with every change, so that a view knows when to draw."""

    def catch_up(self, limit: int = CHUNK) -> bool:
        """Read about `limit` bytes of what is new; whether there is more to read at once."""
        with self._lock:
            chunk = self._follower.read(limit)
            if chunk.restarted:
                self._series, self._clock = {}, Series()
            if chunk.rewind_to is not None and not self._rewind(chunk.rewind_to):
                self._follower.restart()
                return True
            if chunk.rows:
                self._add(chunk.rows)
            if chunk.rows or chunk.restarted or chunk.rewind_to is not None:
                self.version += 1
            return chunk.more

    def metrics(self) -> list[str]:
        """Names of all metrics, losses first."""
        with self._lock:
            return sorted((name for name, series in self._series.items() if len(series)), key=_rank)

    def buckets(self, metric: str, axis: Axis = "steps", began: float | None = None) -> list[Bucket]:
        """The curve of a metric; empty when there is none, or nothing to draw it against.

        Time is counted from `began`, in seconds since the epoch, or from the first row.
        """
        with self._lock:
            series = self._series.get(metric)
            scale = self._scale(axis, began)
            if series is None or scale is None:
                return series.buckets if series and axis == "steps" else []
            return [b._replace(first=scale(b.first), last=scale(b.last)) for b in series.buckets]

    def latest(self, metric: str) -> tuple[float, float] | None:
        """Step and value of the last row that has this metric."""
        with self._lock:
            series = self._series.get(metric)
            return series.latest if series else None

    @property
    def began(self) -> float | None:
        """When the first row was logged, in seconds since the epoch."""
        with self._lock:
            return next((bucket.begin for bucket in self._clock.buckets[:1]), None)

    def has(self, axis: Axis) -> bool:
        """Whether there is anything to draw against `axis`."""
        with self._lock:
            return axis == "steps" or self._scale(axis, None) is not None

    def ends(self, axis: Axis) -> tuple[float, float] | None:
        """Where the rows begin and end on `axis`; None when nothing is known."""
        with self._lock:
            rows = [series.buckets for series in self._series.values() if len(series)]
            scale = self._scale(axis, None)
        if not rows or (scale is None and axis != "steps"):
            return None
        ends = min(buckets[0].first for buckets in rows), max(buckets[-1].last for buckets in rows)
        return (scale(ends[0]), scale(ends[1])) if scale else ends

    def coarse(self, scope: Scope, began: float | None) -> tuple[float, float] | None:
        """The steps to be read again to see a range better: None when its rows are apart, or enough for any plot.

        `began` as for `buckets`.
        """
        with self._lock:
            series = max(self._series.values(), key=len, default=Series())
            scale = self._scale(scope.axis, began)
            back = scale.back if scale else float
            left, right = (None if end is None else back(end) for end in scope.range)
            buckets = series.buckets
        inside = [
            at
            for at, bucket in enumerate(buckets)
            if (left is None or bucket.last >= left) and (right is None or bucket.first <= right)
        ]
        if scope.range == WHOLE or not inside or len(inside) >= FINE or all(buckets[at].size == 1 for at in inside):
            return None
        first, last = inside[0], inside[-1]
        return (
            buckets[first - 1].first if first else -math.inf,
            buckets[last + 1].last if last + 2 < len(buckets) else math.inf,
        )

    def points(self) -> int:
        """How many points all curves hold together."""
        with self._lock:
            return sum(len(series) for series in self._series.values())

    def _rewind(self, step: float) -> bool:
        return all(series.rewind(step) for series in (self._clock, *self._series.values()))

    def _scale(self, axis: Axis, began: float | None) -> Scale | None:
        """From steps to what `axis` counts; None for steps themselves, and where nothing is known."""
        if axis == "steps":
            return None
        if axis in ("tokens", "compute"):
            counted = self._series.get(axis)
            return Scale.of(counted.buckets) if counted else None
        clock = self._clock.buckets
        return Scale.of(clock, clock[0].begin if began is None else began) if clock else None

    def _add(self, rows: list[dict[str, Any]]) -> None:
        steps: list[Any] = [row.get("step") for row in rows]
        if set(map(type, steps)) != {int} or max(steps) > LARGEST or min(steps) < -LARGEST:
            rows = [row for row in rows if _is_number(row.get("step"))]
            steps = [row["step"] for row in rows]
        if self.within != EVERYWHERE:
            low, high = self.within
            rows = [row for row, step in zip(rows, steps, strict=True) if low <= step <= high]
            steps = [row["step"] for row in rows]
        self._clock.extend(*_column(rows, steps, "time"))
        names = set[str]().union(*rows) - NOT_METRICS
        for name in sorted(names):
            series = self._series.get(name)
            if series is None:
                if len(self._series) >= MOST_METRICS:
                    continue
                series = self._series[name] = Series()
            series.extend(*_column(rows, steps, name))


def _column(rows: list[dict[str, Any]], steps: list[Any], name: str) -> tuple[list[float], list[float]]:
    """Steps and values of the rows in which `name` is a number; not-a-number is written as null and left out."""
    values = [row.get(name) for row in rows]
    if set(map(type, values)) == {float}:
        return steps, values  # type: ignore[return-value]  # all floats, as was just seen
    pairs = [(step, float(value)) for step, value in zip(steps, values, strict=True) if _is_number(value)]  # type: ignore[arg-type]
    return [step for step, _ in pairs], [value for _, value in pairs]


def _is_number(value: object) -> bool:
    if type(value) is float:
        return True
    return type(value) is int and abs(value) <= LARGEST


def _rank(name: str) -> tuple[int, str]:
    """Losses before other measures of quality, those before rates and the rest."""
    for place, part in enumerate(("train/loss", "loss", "bits_per_byte", "val/", "train/", "lr", "grad_norm")):
        if part in name:
            return place, name
    return 99, name


class Track:
    """The curves of one run at two scales: all of it, and the range that is looked at.

    All of a long run is kept as buckets of many rows. Their extremes are exact, but not where each was; so a range of
    few buckets is read from the file once more, for itself, and followed like the whole.
    """

    def __init__(self, path: Path) -> None:
        self.scope = EVERYTHING
        """What the screen shows; the next `catch_up` goes by it."""
        self.whole = Curves(path)
        self._path = path
        self._part: tuple[Scope, Curves] | None = None

    @property
    def version(self) -> tuple[int, int, int]:
        """Changes whenever a view has something new to draw."""
        part = self._part
        return self.whole.version, part[1].version if part else 0, id(part[1]) if part else 0

    def catch_up(self) -> None:
        """Read all that is new. For one thread at a time."""
        _to_the_end(self.whole)
        scope, part = self.scope, self._part
        if part and part[0] == scope:
            _to_the_end(part[1])
            return
        curves = self.whole
        while (steps := curves.coarse(scope, self.whole.began)) is not None and steps != curves.within:
            curves = Curves(self._path, steps)
            _to_the_end(curves)
        self._part = None if curves is self.whole else (scope, curves)

    def curves(self) -> Curves:
        """The curves that show the range best."""
        part = self._part
        return part[1] if part and part[0] == self.scope else self.whole


class RecentTracks:
    """The curves of the runs that were looked at last, so that going back to one shows it at once."""

    KEPT = 16
    """More than can be marked."""

    def __init__(self) -> None:
        self._tracks: dict[str, Track] = {}

    def of(self, run: RunDir, scope: Scope) -> Track:
        """The run's curves, which are to show this scope, and become the last to be forgotten."""
        track = self._tracks.pop(run.id, None) or Track(run.metrics)
        self._tracks[run.id] = track
        track.scope = scope
        while len(self._tracks) > self.KEPT:
            del self._tracks[next(iter(self._tracks))]
        return track


def _to_the_end(curves: Curves) -> None:
    while curves.catch_up():
        pass
