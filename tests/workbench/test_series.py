"""Curves in constant memory: exact extremes, rewinds that leave no trace, smoothing, and round ticks."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.plots.series import (
    CAPACITY,
    Series,
    fewer,
    log_ticks,
    outline,
    round_end,
    round_limits,
    smooth,
    tick_label,
    ticks,
)


def build(points: list[tuple[float, float]]) -> Series:
    series = Series()
    for x, y in points:
        series.append(x, y)
    return series


def test_a_million_points_take_constant_memory_and_keep_exact_extremes() -> None:
    series = Series()
    draw = random.Random(1)
    values = [draw.gauss(0, 1) for _ in range(1_000_000)]
    values[314_159], values[271_828] = 99.0, -99.0
    for start in range(0, len(values), 10_000):
        series.extend(range(start, start + 10_000), values[start : start + 10_000])
    assert len(series) == 1_000_000
    assert len(series.buckets) <= CAPACITY
    assert (series.low, series.high) == (-99.0, 99.0)
    peak = next(bucket for bucket in series.buckets if bucket.high == 99.0)
    assert peak.first <= 314_159 <= peak.last
    assert sum(bucket.total for bucket in series.buckets) == pytest.approx(sum(values))
    assert series.latest == (999_999, values[-1])


@given(
    st.lists(st.integers(-1000, 1000), max_size=3000),
    st.lists(st.tuples(st.integers(0, 3000), st.lists(st.integers(-9, 9), max_size=400)), max_size=4),
)
def test_a_rewound_series_is_the_one_that_the_kept_points_make(
    first: list[int], rewinds: list[tuple[int, list[int]]]
) -> None:
    points = [(float(x), float(y)) for x, y in enumerate(first)]
    series = Series()
    series.extend([x for x, _ in points], [y for _, y in points])
    for at, more in rewinds:
        before = series.buckets
        points_kept = [point for point in points if point[0] <= at]
        if series.rewind(at):
            points = points_kept
        else:
            assert series.buckets == before
        start = points[-1][0] + 1 if points else 0.0
        added = [(start + i, float(y)) for i, y in enumerate(more)]
        points += added
        for x, y in added:
            series.append(x, y)
        assert series.buckets == build(points).buckets


def test_a_rewind_within_merged_points_is_refused_and_one_beyond_the_end_changes_nothing() -> None:
    series = build([(x, float(x)) for x in range(10_000)])
    before = series.buckets
    assert not series.rewind(5)
    assert series.rewind(20_000)
    assert series.buckets == before


@pytest.mark.parametrize("count", [0, 1, 7, 240, 239])
def test_fewer_buckets_keep_the_extremes_and_the_points(count: int) -> None:
    buckets = build([(x, math.sin(x * 7.0)) for x in range(count)]).buckets
    found = fewer(buckets, 60)
    assert len(found) <= 60
    assert sum(bucket.size for bucket in found) == count
    if count:
        assert (found[0].first, found[-1].last) == (0, count - 1)
        assert min(b.low for b in found) == min(b.low for b in buckets)
        assert max(b.high for b in found) == max(b.high for b in buckets)


def test_values_that_are_not_finite_are_no_points() -> None:
    series = Series()
    series.extend([1, 2, 3, 4], [1.0, math.nan, math.inf, 2.0])
    series.append(5, -math.inf)
    assert [(b.first, b.low) for b in series.buckets] == [(1, 1.0), (4, 2.0)]


def test_an_outline_touches_every_extreme() -> None:
    series = build([(x, math.sin(x)) for x in range(5_000)])
    points = outline(series.buckets)
    assert len(points) <= 2 * CAPACITY
    assert min(y for _, y in points) == series.low
    assert max(y for _, y in points) == series.high


def test_smoothing_starts_without_bias_and_follows_a_constant_exactly() -> None:
    constant = build([(x, 3.0) for x in range(1000)])
    assert [y for _, y in smooth(constant.buckets, 0.97)] == pytest.approx([3.0] * len(constant.buckets))
    drop = build([(x, 1.0 if x < 500 else 0.0) for x in range(1000)])
    smoothed = [y for _, y in smooth(drop.buckets, 0.9)]
    assert smoothed[0] == 1.0
    assert 0.0 < smoothed[-1] < 0.01
    assert max(abs(a - b) for a, b in zip(smoothed[1:], smoothed, strict=False)) < 0.2


def test_smoothing_looks_the_same_at_every_length() -> None:
    short = build([(x, 1.0 if x < 500 else 0.0) for x in range(1_000)])
    long = build([(x, 1.0 if x < 50_000 else 0.0) for x in range(100_000)])
    at = [
        dict(zip(("x", "y"), smooth(s.buckets, 0.97)[int(len(s.buckets) * 0.55)], strict=True)) for s in (short, long)
    ]
    assert at[0]["y"] == pytest.approx(at[1]["y"], abs=0.05)


@pytest.mark.parametrize(
    ("low", "high", "most", "expected"),
    [
        (0, 10, 6, [0, 2, 4, 6, 8, 10]),
        (0.3, 4.1, 5, [1, 2, 3, 4]),
        (-1, 1, 5, [-1, -0.5, 0, 0.5, 1]),
        (0, 2_000, 5, [0, 500, 1000, 1500, 2000]),
        (3, 3, 5, [3]),
    ],
)
def test_ticks_are_one_two_or_five_apart(low: float, high: float, most: int, expected: list[float]) -> None:
    assert ticks(low, high, most) == pytest.approx(expected)


@given(st.floats(-1e12, 1e12), st.floats(1e-9, 1e12), st.integers(1, 12))
def test_ticks_are_few_and_inside(low: float, width: float, most: int) -> None:
    high = low + width
    found = ticks(low, high, most)
    assert len(found) <= most
    slack = 1e-6 * (high - low) + 1e-9 * abs(low)
    assert all(low - slack <= tick <= high + slack for tick in found)


def test_log_ticks_thin_out_with_the_decades() -> None:
    assert log_ticks(0.1, 10, 10) == pytest.approx([0.1, 0.2, 0.5, 1, 2, 5, 10])
    assert log_ticks(1e-6, 1, 7) == pytest.approx([1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1])
    assert log_ticks(-1, 1, 5) == []


@pytest.mark.parametrize(
    ("value", "spacing", "label"),
    [
        (1500, 500, "1.5k"),
        (2_000, 1000, "2k"),
        (2_500_000, 500_000, "2.5M"),
        (0, 0.5, "0.0"),
        (1.5, 0.5, "1.5"),
        (0.003, 0, "0.003"),
        (0.0002, 0.0001, "2e-4"),
        (1e-7, 0, "1e-7"),
        (-20_000, 10_000, "-20k"),
        (0.8, 0.2, "0.8"),
    ],
)
def test_labels_are_short_and_use_k_and_m(value: float, spacing: float, label: str) -> None:
    assert tick_label(value, spacing) == label


@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9))
def test_round_limits_hold_what_they_are_given(a: float, b: float) -> None:
    low, high = round_limits(min(a, b), max(a, b))
    assert low < high
    slack = 1e-9 * max(abs(a), abs(b)) + 1e-9  # far below a dot of the plot
    assert low <= min(a, b) + slack
    assert high >= max(a, b) - slack


@given(st.floats(1e-6, 1e12))
def test_an_axis_ends_beyond_its_data_but_not_far(value: float) -> None:
    assert value * (1 - 1e-6) <= round_end(value) <= value * 1.35
