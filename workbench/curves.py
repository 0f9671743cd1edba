"""The curves of one run: its metrics.jsonl as a series for every metric, kept up to date by a thread."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from workbench.follow import CHUNK, RowFollower
from workbench.series import Bucket, Series

NOT_METRICS = frozenset({"step", "time", "rewind_to"})

LARGEST = 2**53
"""Whole numbers beyond it are no steps and no values: a float cannot hold them."""

MOST_METRICS = 256
"""Metrics that are kept; a file with more different keys than this is no log of ours."""


class Curves:
    """Series by metric. `catch_up` may run in a thread; every other method is safe to call meanwhile."""

    def __init__(self, path: Path) -> None:
        self._follower = RowFollower(path)
        self._lock = threading.Lock()
        self._series: dict[str, Series] = {}
        self.version = 0
        """Grows with every change, so that a view knows when to draw."""

    def catch_up(self, limit: int = CHUNK) -> bool:
        """Read about `limit` bytes of what is new; whether there is more to read at once."""
        with self._lock:
            chunk = self._follower.read(limit)
            if chunk.restarted:
                self._series = {}
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

    def buckets(self, metric: str) -> list[Bucket]:
        """The curve of a metric; empty when there is none."""
        with self._lock:
            series = self._series.get(metric)
            return series.buckets if series else []

    def latest(self, metric: str) -> tuple[float, float] | None:
        """Step and value of the last row that has this metric."""
        with self._lock:
            series = self._series.get(metric)
            return series.latest if series else None

    def points(self) -> int:
        """How many points all curves hold together."""
        with self._lock:
            return sum(len(series) for series in self._series.values())

    def _rewind(self, step: float) -> bool:
        return all(series.rewind(step) for series in self._series.values())

    def _add(self, rows: list[dict[str, Any]]) -> None:
        steps: list[Any] = [row.get("step") for row in rows]
        if set(map(type, steps)) != {int} or max(steps) > LARGEST or min(steps) < -LARGEST:
            rows = [row for row in rows if _is_number(row.get("step"))]
            steps = [row["step"] for row in rows]
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
