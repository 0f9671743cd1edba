"""Shares with intervals, and how far two people agree: what evaluation and label figures are told with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

Z = 1.959963984540054
"""Of a 95 % interval."""


class Share(NamedTuple):
    """How many of how many, with the bounds of the 95 % Wilson interval (0 and 1 where there is nothing to count)."""

    hits: float
    of: int
    low: float
    high: float

    @property
    def value(self) -> float | None:
        return self.hits / self.of if self.of else None

    def __str__(self) -> str:
        if self.value is None:
            return "—"
        return f"{100 * self.value:.1f} % ({100 * self.low:.1f}–{100 * self.high:.1f})"


def share(hits: float, count: int) -> Share:
    """`hits` of `count` with the Wilson score interval; `hits` may be halves, for ties.

    Source: E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference (1927).
    """
    if not count:
        return Share(0, 0, 0.0, 1.0)
    p, z2 = hits / count, Z * Z
    middle = p + z2 / (2 * count)
    reach = Z * math.sqrt(p * (1 - p) / count + z2 / (4 * count * count))
    scale = 1 + z2 / count
    low = (middle - reach) / scale if hits else 0.0
    high = (middle + reach) / scale if hits < count else 1.0
    return Share(hits, count, low, high)


class Pairs(NamedTuple):
    """Pairs that two rankings both order, in agreement or not, and pairs that one or both leave tied."""

    agree: int
    differ: int
    tied_in_one: int
    tied_in_both: int


def compare(a: Sequence[float], b: Sequence[float]) -> Pairs:
    """What two rankings of the same things say of each pair."""
    agree = differ = one = both = 0
    for i, j in combinations(range(len(a)), 2):
        left, right = a[i] - a[j], b[i] - b[j]
        if left == 0 and right == 0:
            both += 1
        elif left == 0 or right == 0:
            one += 1
        elif (left > 0) == (right > 0):
            agree += 1
        else:
            differ += 1
    return Pairs(agree, differ, one, both)


def kendall_tau(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Kendall's τ-b of two rankings, which accounts for ties; None when one of them ties everything.

    Source: M. G. Kendall, The Treatment of Ties in Ranking Problems, Biometrika 33 (1945).
    """
    pairs = compare(a, b)
    untied_a = sum(1 for i, j in combinations(range(len(a)), 2) if a[i] != a[j])
    untied_b = sum(1 for i, j in combinations(range(len(b)), 2) if b[i] != b[j])
    if not untied_a or not untied_b:
        return None
    return (pairs.agree - pairs.differ) / math.sqrt(untied_a * untied_b)


def mean_interval(values: Sequence[float]) -> tuple[float, float, float] | None:
    """The mean and its 95 % interval by the normal approximation; None for nothing."""
    if not values:
        return None
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, mean, mean
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    reach = Z * math.sqrt(variance / len(values))
    return mean, mean - reach, mean + reach
