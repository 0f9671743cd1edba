"""A curve of any length in constant memory: min/max buckets that merge by powers of two; smoothing; ticks for axes.

Appending costs O(1) amortised, and the extremes that a bucket reports are exact whatever the number of points.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from typing import NamedTuple

CAPACITY = 240
"""Full buckets at which neighbours merge, so that a long curve has 120 to 239 of them."""

SMOOTHING_STEPS = 240
"""Parts into which smoothing divides the range on screen: the same weight looks the same at any length."""


class Bucket(NamedTuple):
    """Consecutive points as one: their range in x and y, and what a line through them needs."""

    first: float
    last: float
    low: float
    high: float
    total: float
    size: int
    begin: float
    end: float

    @property
    def middle(self) -> float:
        return (self.first + self.last) / 2

    @property
    def mean(self) -> float:
        return self.total / self.size


class Series:
    """Points (x, y) in the order of x, as at most `CAPACITY` buckets of equally many points."""

    def __init__(self) -> None:
        self._full: list[Bucket] = []
        self._tail: Bucket | None = None
        self._width = 1

    def __len__(self) -> int:
        """How many points there are."""
        return len(self._full) * self._width + (self._tail.size if self._tail else 0)

    @property
    def buckets(self) -> list[Bucket]:
        """All buckets, the last of which may hold fewer points than the others."""
        return [*self._full, self._tail] if self._tail else list(self._full)

    @property
    def latest(self) -> tuple[float, float] | None:
        """The last point."""
        bucket = self._tail or (self._full[-1] if self._full else None)
        return (bucket.last, bucket.end) if bucket else None

    @property
    def low(self) -> float:
        """The smallest y, exactly; nan when there is none."""
        return min((bucket.low for bucket in self.buckets), default=math.nan)

    @property
    def high(self) -> float:
        """The largest y, exactly; nan when there is none."""
        return max((bucket.high for bucket in self.buckets), default=math.nan)

    def append(self, x: float, y: float) -> None:
        """Add one point. What is not finite is no point of the curve and is left out."""
        if math.isfinite(x) and math.isfinite(y):
            self._absorb([x], [y])

    def extend(self, xs: Sequence[float], ys: Sequence[float]) -> None:
        """Add many points, equally many in both; the same as appending each, and some twenty times faster."""
        if not (math.isfinite(sum(xs)) and math.isfinite(sum(ys))):
            pairs = [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(x) and math.isfinite(y)]
            xs, ys = [x for x, _ in pairs], [y for _, y in pairs]
        self._absorb(xs, ys)

    def rewind(self, x: float) -> bool:
        """Drop the points beyond `x`. False, and nothing is changed, when that takes points that have been merged.

        After True the series is the one that the points up to `x` alone would have made.
        """
        kept = [bucket for bucket in self._full if bucket.last <= x]
        split = [bucket for bucket in self.buckets if bucket.first <= x < bucket.last]
        if split or (self._width > 1 and len(kept) < CAPACITY // 2):
            return len(kept) == len(self._full) and not split
        if self._tail and self._tail.first > x:
            self._tail = None
        self._full = kept
        return True

    def _absorb(self, xs: Sequence[float], ys: Sequence[float]) -> None:
        start, count = 0, len(xs)
        while start < count:
            held = self._tail.size if self._tail else 0
            stop = min(count, start + self._width - held)
            bucket = _bucket(xs[start:stop], ys[start:stop])
            self._tail = _merge(self._tail, bucket) if self._tail else bucket
            start = stop
            if self._tail.size == self._width:
                self._full.append(self._tail)
                self._tail = None
                if len(self._full) == CAPACITY:
                    self._full = [_merge(*self._full[i : i + 2]) for i in range(0, CAPACITY, 2)]
                    self._width *= 2


def _bucket(xs: Sequence[float], ys: Sequence[float]) -> Bucket:
    if len(xs) == 1:
        x, y = xs[0], ys[0]
        return Bucket(x, x, y, y, y, 1, y, y)
    return Bucket(min(xs), max(xs), min(ys), max(ys), sum(ys), len(ys), ys[0], ys[-1])


def _merge(a: Bucket, b: Bucket) -> Bucket:
    return Bucket(
        min(a.first, b.first),
        max(a.last, b.last),
        min(a.low, b.low),
        max(a.high, b.high),
        a.total + b.total,
        a.size + b.size,
        a.begin,
        b.end,
    )


def fewer(buckets: Sequence[Bucket], most: int) -> list[Bucket]:
    """Neighbours merged in pairs until there are at most `most`; extremes stay exact."""
    found = list(buckets)
    while len(found) > most:
        pairs = [_merge(a, b) for a, b in zip(found[::2], found[1::2], strict=False)]
        found = [*pairs, found[-1]] if len(found) % 2 else pairs
    return found


class Scale:
    """What another quantity was at each x, from its own buckets: how steps become tokens or seconds, and back.

    Linear between the ends of buckets, and held at the ends. The quantity is taken to grow: a clock that was set back
    stands still until it has caught up.
    """

    def __init__(self, xs: Sequence[float], ys: Sequence[float]) -> None:
        self._xs, self._ys = xs, ys

    @classmethod
    def of(cls, buckets: Sequence[Bucket], origin: float = 0.0) -> Scale:
        """The scale from x to y − `origin`."""
        xs: list[float] = []
        ys: list[float] = []
        for bucket in buckets:
            for x, y in ((bucket.first, bucket.begin), (bucket.last, bucket.end)):
                if not xs or x > xs[-1]:
                    xs.append(x)
                    ys.append(max(y - origin, ys[-1]) if ys else y - origin)
        return cls(xs, ys)

    @property
    def back(self) -> Scale:
        """From y to x."""
        return Scale(self._ys, self._xs)

    def __call__(self, x: float) -> float:
        """The quantity at `x`; nan when nothing is known."""
        xs, ys = self._xs, self._ys
        at = bisect.bisect_right(xs, x)
        if at == 0 or at == len(xs):
            return ys[max(0, at - 1)] if xs else math.nan
        return ys[at - 1] + (ys[at] - ys[at - 1]) * (x - xs[at - 1]) / (xs[at] - xs[at - 1])


def clipped(points: Sequence[tuple[float, float]], left: float, right: float) -> list[tuple[float, float]]:
    """The part of a line through `points`, in the order of x, from `left` to `right`, cut where it crosses them."""
    found: list[tuple[float, float]] = []
    before: tuple[float, float] | None = None
    for point in points:
        if before is not None:
            found += [_between(before, point, end) for end in (left, right) if before[0] < end < point[0]]
        if left <= point[0] <= right:
            found.append(point)
        before = point
    return found


def _between(a: tuple[float, float], b: tuple[float, float], x: float) -> tuple[float, float]:
    return x, a[1] + (b[1] - a[1]) * (x - a[0]) / (b[0] - a[0])


def outline(buckets: Sequence[Bucket]) -> list[tuple[float, float]]:
    """Points of a line that touches every bucket's extremes, at most two a bucket."""
    points: list[tuple[float, float]] = []
    for bucket in buckets:
        if bucket.low == bucket.high:
            points.append((bucket.middle, bucket.low))
        elif bucket.begin <= bucket.end:
            points += [(bucket.first, bucket.low), (bucket.last, bucket.high)]
        else:
            points += [(bucket.first, bucket.high), (bucket.last, bucket.low)]
    return points


def smooth(buckets: Sequence[Bucket], weight: float) -> list[tuple[float, float]]:
    """The means of buckets, smoothed: an exponential moving average whose weights decay with the distance in x.

    s_k = Σ_{i ≤ k} w^{d(i, k)} y_i / Σ_{i ≤ k} w^{d(i, k)},  d = (x_k − x_i) · SMOOTHING_STEPS / (x_last − x_first)

    The division corrects the bias at the start, so that the first value is y_0 (Kingma and Ba, arXiv 1412.6980,
    section 3, for the same correction). `weight` is w, from 0 (nothing is smoothed) to below 1.
    """
    if not buckets or weight <= 0:
        return [(bucket.middle, bucket.mean) for bucket in buckets]
    span = buckets[-1].middle - buckets[0].middle
    points: list[tuple[float, float]] = []
    total = norm = 0.0
    before = buckets[0].middle
    for bucket in buckets:
        x = bucket.middle
        decay = weight ** (max(0.0, x - before) * SMOOTHING_STEPS / span) if span > 0 else weight
        total, norm = total * decay + bucket.mean, norm * decay + 1.0
        points.append((x, total / norm))
        before = x
    return points


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` round numbers, 1, 2 or 5 times a power of ten apart, from `low` to `high`."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low or most < 1:
        return [low] if math.isfinite(low) and most >= 1 else []
    step = _round_up((high - low) / most)
    start = math.ceil(low / step - 1e-9)
    found: list[float] = []
    while (value := start * step) <= high + step * 1e-9 and len(found) <= most:
        found.append(value if abs(value) > step * 1e-9 else 0.0)
        start += 1
    return found if len(found) <= most else found[::2][:most]


_CLOCK = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400)


def clock_ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` moments from `low` to `high`, in seconds, as far apart as clocks are divided, or whole days."""
    if high - low < 2 * most:
        return ticks(low, high, most)
    step = next((step for step in _CLOCK if (high - low) / step <= most - 1), 0)
    if not step:
        return [day * 86_400 for day in ticks(low / 86_400, high / 86_400, most)]
    return [step * count for count in range(math.ceil(low / step), math.floor(high / step) + 1)]


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` of the numbers 1, 2 and 5 times powers of ten from `low` to `high`, both above zero."""
    if not (0 < low <= high < math.inf) or most < 1:
        return []
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors, every in (((1, 2, 5), 1), ((1, 3), 1), ((1,), 1), ((1,), 2), ((1,), 5), ((1,), 20), ((1,), 100)):
        found = [f * 10.0**d for d in decades if d % every == 0 for f in factors]
        found = [value for value in found if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
        if len(found) <= most:
            return found or ticks(low, high, most)
    return []


def round_limits(low: float, high: float) -> tuple[float, float]:
    """`low` and `high` moved outward to round numbers, so that an axis stays put while its data grow a little."""
    if high <= low:
        pad = abs(low) * 0.05 or 1.0
        low, high = low - pad, high + pad
    step = _round_up((high - low) / 20)
    return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step


def round_end(value: float) -> float:
    """The first of a few round numbers that is not below `value`: where an axis that grows may end for now."""
    if value <= 0 or not math.isfinite(value):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    steps = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)
    return next(power * step for step in steps if power * step >= value * (1 - 1e-9))


def tick_label(value: float, spacing: float = 0.0) -> str:
    """A number for an axis in few characters, with k to E: 2.5k, 0.003, 1e-7. `spacing` is to the next tick."""
    size = abs(value)
    if size >= 1e21:
        return f"{value:.0e}".replace("e+", "e")
    for unit, letter in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= unit * (1 - 1e-9):
            return _plain(value / unit, spacing / unit) + letter
    if 0 < size < 1e-3 and spacing < 1e-3:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return f"{_plain(float(mantissa), 0.0)}e{int(exponent)}"
    return _plain(value, spacing)


def figure(value: float) -> str:
    """A measured value in about four digits: 1.512, 0.0003, 52.1k."""
    for unit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= (10 * unit if letter == "k" else unit):
            return f"{value / unit:.4g}{letter}"
    return f"{value:.4g}"


def _plain(value: float, spacing: float) -> str:
    digits = max(0, -math.floor(math.log10(spacing) + 1e-9)) if spacing > 0 else 3
    text = f"{value:.{min(digits, 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text and spacing <= 0 else text


def _round_up(value: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is at least `value`."""
    power = 10.0 ** math.floor(math.log10(value))
    return next((power * step for step in (1, 2, 5) if power * step >= value * (1 - 1e-9)), power * 10)
