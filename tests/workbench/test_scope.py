"""Ranges as people write them, axes other than steps, and a range read finely where the whole is coarse."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.store.errors import UserError
from workbench.plots.curves import Curves, Track
from workbench.plots.scope import EVERYTHING, WHOLE, Axis, Range, Scope, parse_range, range_text
from workbench.plots.series import CAPACITY, Scale, Series, clipped, clock_ticks

STEPS = 20_000


def write(path: Path, rows: Sequence[object], mode: str = "a") -> None:
    with path.open(mode) as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def row(step: int, loss: float = 1.0) -> dict[str, float]:
    """Two tokens a step; a tenth of a second a step, and an hour's pause at half of STEPS."""
    pause = 3_600.0 if step > STEPS // 2 else 0.0
    return {"step": step, "time": 5_000.0 + step / 10 + pause, "tokens": 2.0 * step, "train/loss": loss}


def long_run(tmp_path: Path) -> Track:
    """A long run of loss 1 with one row in it that stands out, at step 12,345."""
    path = tmp_path / "metrics.jsonl"
    write(path, [row(step, 9.0 if step == 12_345 else 1.0) for step in range(1, STEPS + 1)])
    return caught_up(Track(path))


def caught_up(track: Track, scope: Scope = EVERYTHING) -> Track:
    track.scope = scope
    track.catch_up()
    return track


def test_a_time_beyond_all_numbers_is_refused() -> None:
    with pytest.raises(UserError, match="no number of"):
        parse_range("0-" + "1:" * 400 + "1", "time")


@pytest.mark.parametrize(
    ("text", "axis", "range_"),
    [
        ("1000-5000", "steps", Range(1000, 5000)),
        (" 1k - 5K ", "steps", Range(1000, 5000)),
        ("1,000..2_000", "steps", Range(1000, 2000)),
        ("2.5M-", "tokens", Range(2.5e6, None)),
        ("-500", "steps", Range(None, 500)),
        ("1e3-2e3", "steps", Range(1000, 2000)),
        ("5:00-1:30:00", "time", Range(300, 5400)),
        ("10m–2h", "time", Range(600, 7200)),
        ("90-", "time", Range(90, None)),
        ("", "steps", WHOLE),
        ("-", "steps", WHOLE),
    ],
)
def test_ranges_are_read_as_people_write_them(text: str, axis: Axis, range_: Range) -> None:
    assert parse_range(text, axis) == range_


@pytest.mark.parametrize("text", ["5", "5-1", "5-5", "a-b", "1-2-3", "nan-5", "1-inf", "-5-7", "1:2-3", "9k9-", "k-"])
def test_what_is_no_range_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UserError) as refused:
        parse_range(text, "steps")
    assert "1000-5000" in refused.value.hint


@given(st.integers(0, 10**6), st.integers(1, 10**6))
def test_a_range_of_steps_is_shown_as_it_is_read(left: int, width: int) -> None:
    assert parse_range(range_text(Range(left, left + width), "steps"), "steps") == Range(left, left + width)


def test_a_scale_is_linear_between_and_held_at_the_ends_and_never_turns_back() -> None:
    series = Series()
    series.extend([0, 10, 20, 30], [100.0, 200.0, 150.0, 300.0])
    scale = Scale.of(series.buckets, origin=100.0)
    assert [scale(x) for x in (-5, 0, 5, 10, 20, 25, 30, 99)] == [0, 0, 50, 100, 100, 150, 200, 200]
    assert scale.back(150) == 25
    assert math.isnan(Scale.of([])(1.0))


def test_a_clipped_line_is_cut_where_it_crosses_the_ends() -> None:
    line = [(0.0, 0.0), (10.0, 10.0), (20.0, 0.0)]
    assert clipped(line, 5, 15) == [(5, 5), (10, 10), (15, 5)]
    assert clipped(line, 2, 4) == [(2, 2), (4, 4)]
    assert clipped(line, -9, 0) == [(0, 0)]
    assert clipped(line, 21, 30) == []


@pytest.mark.parametrize(
    ("high", "expected"),
    [
        (60, [0, 15, 30, 45, 60]),
        (5_400, [0, 1_800, 3_600, 5_400]),
        (700_000, [day * 86_400 for day in (0, 2, 4, 6, 8)]),
    ],
)
def test_ticks_of_time_divide_it_as_clocks_do(high: float, expected: list[float]) -> None:
    assert clock_ticks(0, high, 5) == pytest.approx(expected)


@given(st.floats(0, 1e7), st.floats(0.1, 1e7), st.integers(2, 12))
def test_ticks_of_time_are_few_and_inside(low: float, width: float, most: int) -> None:
    found = clock_ticks(low, low + width, most)
    assert len(found) <= most
    assert all(low - 1e-6 * width <= tick <= low + width * (1 + 1e-6) for tick in found)


def test_curves_are_drawn_against_tokens_and_time_since_the_start(tmp_path: Path) -> None:
    curves = long_run(tmp_path).whole
    steps = curves.buckets("train/loss")
    tokens, times = curves.buckets("train/loss", "tokens"), curves.buckets("train/loss", "time")
    assert [b.first for b in tokens] == pytest.approx([2 * b.first for b in steps])
    assert times[0].first == 0
    assert times[-1].last == pytest.approx((STEPS - 1) / 10 + 3_600)
    assert {b.high for b in times} == {b.high for b in steps} == {1.0, 9.0}
    assert "time" not in curves.metrics()
    assert curves.ends("tokens") == (2, 2 * STEPS)


def test_a_run_without_tokens_or_times_has_no_such_axis(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, [{"step": step, "loss": 1.0} for step in range(1, 5)])
    curves = caught_up(Track(path)).whole
    assert not curves.has("tokens") and not curves.has("time") and curves.has("steps")
    assert curves.buckets("loss", "tokens") == [] == curves.buckets("loss", "time")


@pytest.mark.parametrize(
    ("scope", "factor"),
    [
        (Scope("steps", Range(12_300, 12_400)), 1.0),
        (Scope("tokens", Range(24_600, 24_800)), 2.0),
        (Scope("time", Range(4_830, 4_840)), 0.1),
    ],
)
def test_a_range_shows_each_row_at_its_place(tmp_path: Path, scope: Scope, factor: float) -> None:
    track = long_run(tmp_path)
    assert track.curves() is track.whole
    assert max(bucket.size for bucket in track.whole.buckets("train/loss")) > 1
    fine = caught_up(track, scope).curves()
    assert fine is not track.whole
    left, right = scope.range
    assert left is not None and right is not None
    inside = [b for b in fine.buckets("train/loss", scope.axis, track.whole.began) if left <= b.first <= right]
    assert len(inside) == pytest.approx(100, abs=2)
    assert all(bucket.size == 1 for bucket in inside)
    (peak,) = [bucket for bucket in inside if bucket.high > 1]
    assert peak.high == 9.0
    assert peak.first == pytest.approx((12_345 - (1 if scope.axis == "time" else 0)) * factor + 3_600 * (factor == 0.1))


def test_a_range_read_finely_follows_the_run_and_its_rewinds(tmp_path: Path) -> None:
    track = caught_up(long_run(tmp_path), Scope("steps", Range(19_900, None)))
    path = tmp_path / "metrics.jsonl"
    write(path, [row(STEPS + 1, 7.0)])
    track.catch_up()
    assert track.curves().latest("train/loss") == (STEPS + 1, 7.0)
    before = track.version
    write(path, [{"rewind_to": 19_950}, row(19_951, 3.0)])
    track.catch_up()
    assert track.version != before
    fresh = Curves(path, track.curves().within)
    while fresh.catch_up():
        pass
    assert track.curves().buckets("train/loss") == fresh.buckets("train/loss")
    assert track.curves().latest("train/loss") == (19_951, 3.0)


def test_a_short_run_is_never_read_twice(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, [row(step) for step in range(1, CAPACITY)])
    track = caught_up(Track(path), Scope("steps", Range(10, 20)))
    assert track.curves() is track.whole


def test_compute_has_an_axis_where_it_was_logged(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, [row(step) | {"compute": 1e13 * step} for step in range(1, 40)])
    track = caught_up(Track(path))
    assert track.whole.ends("compute") == (1e13, 39e13)
    assert track.whole.buckets("train/loss", "compute")[-1].last == 39e13
    write(path, [row(step) for step in range(1, 40)], "w")
    unknown = caught_up(Track(path)).whole
    assert unknown.has("tokens") and not unknown.has("compute") and unknown.buckets("train/loss", "compute") == []
