"""Frames of the plot: their shape, what they show, and that they do not depend on the length of the run."""

from __future__ import annotations

import math
import time
from itertools import pairwise

import pytest

from workbench.plots.plot import GRID, Curve, Line, frame, window
from workbench.plots.scope import Axis
from workbench.plots.series import Series, outline


def text(lines: list[Line]) -> list[str]:
    return ["".join(span.text for span in line) for line in lines]


def falling(count: int) -> Series:
    series = Series()
    series.extend(range(1, count + 1), [4 * math.exp(-3 * i / count) + 1 for i in range(count)])
    return series


def test_a_frame_has_ticks_a_curve_from_corner_to_corner_and_exact_size() -> None:
    curves = [Curve(outline(falling(2000).buckets), 0)]
    lines = text(frame(curves, window(curves), 80, 20))
    assert len(lines) == 20
    assert {len(line) for line in lines} == {80}
    assert lines[0].startswith("5 ┤")
    assert lines[-1].split() == ["0", "500", "1.0k", "1.5k", "2.0k"]
    canvas = [line[3:] for line in lines[:-2]]
    assert any(0x2800 < ord(char) < 0x2900 for char in canvas[0][:4])
    assert any(0x2800 < ord(char) < 0x2900 for row in canvas[-5:] for char in row[-4:])


@pytest.mark.parametrize(
    ("axis", "end", "across", "told"),
    [
        ("steps", 2000.0, "steps", "2.0k steps"),
        ("compute", 2e12, "FLOP", "2.0T FLOP"),
        ("time", 1800.0, "time", "30:00 min:s"),
        ("steps", 2000.0, "", "2.0k"),
    ],
)
def test_the_last_tick_says_what_x_counts(axis: Axis, end: float, across: str, told: str) -> None:
    curves = [Curve([(end * share / 10, 1.0 + share) for share in range(11)], 0)]
    lines = text(frame(curves, window(curves, axis=axis, end=end), 80, 20, across))
    assert lines[-1].rstrip().endswith(f" {told}") and {len(line) for line in lines} == {80}
    assert text(frame(curves, window(curves, axis=axis), 24, 8, across))[-1].strip()


def test_two_curves_differ_by_role_and_by_marker() -> None:
    curves = [
        Curve(outline(falling(500).buckets), 0),
        Curve([(100, 4.5), (300, 4.0), (500, 3.5)], 1, "◆", joined=False),
    ]
    lines = frame(curves, window(curves), 60, 15)
    assert sum(span.text.count("◆") for line in lines for span in line if span.role == 1) == 3
    assert all("◆" not in span.text for line in lines for span in line if span.role != 1)
    assert any(span.role == GRID for line in lines for span in line)


def test_a_log_axis_straightens_a_decay_and_leaves_out_what_has_no_logarithm() -> None:
    points = [(float(x), math.exp(-x / 10)) for x in range(100)] + [(50.0, 0.0), (60.0, -1.0)]
    curves = [Curve(points, 0)]
    view = window(curves, log=True)
    assert view is not None
    assert 0 < view.low <= math.exp(-9.9)
    canvas = text(frame(curves, view, 60, 24))[:-2]
    columns = [min(line.find(char) for char in line if 0x2800 < ord(char) < 0x2900) for line in canvas[2:18]]
    gaps = [b - a for a, b in pairwise(columns)]
    assert max(gaps) - min(gaps) <= 2


def test_nothing_to_draw_and_no_room_are_blank() -> None:
    assert window([Curve([], 0)]) is None
    assert text(frame([], None, 20, 3)) == [" " * 20] * 3
    curves = [Curve([(1, 1)], 0)]
    assert text(frame(curves, window(curves), 10, 3)) == [" " * 10] * 3


@pytest.mark.parametrize(
    "points", [[(1, 5)], [(0, 0)], [(3, -2), (3, -2)], [(1, 1e-300), (2, 1e300)], [(-5, 1), (-4, 2)]]
)
@pytest.mark.parametrize("log", [False, True])
def test_odd_data_make_frames_too(points: list[tuple[float, float]], log: bool) -> None:
    curves = [Curve(points, 0)]
    assert len(frame(curves, window(curves, log=log), 40, 12)) == 12


def test_the_window_rests_while_a_run_grows() -> None:
    views = {window([Curve(outline(falling(count).buckets), 0)]) for count in range(1000, 2000, 10)}
    assert len(views) <= 6


def test_a_frame_of_a_million_points_takes_no_longer() -> None:
    curves = [Curve(outline(falling(1_000_000).buckets), 0)]
    best = math.inf
    for _ in range(5):
        start = time.perf_counter()
        frame(curves, window(curves), 120, 30)
        best = min(best, time.perf_counter() - start)
    assert best <= 3 * 0.030
