"""Curves as lines of text. The only importer of plotext, which draws the braille; ticks and frame are drawn here.

plotext has one global figure, so one canvas is drawn at a time, whatever the thread.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from workbench.plots.scope import WHOLE, Axis, Range
from workbench.plots.series import clock_ticks, log_ticks, round_end, round_limits, tick_label, ticks
from workbench.wording import duration

AXIS, GRID = -1, -2
"""Roles of text that is no curve."""

LEAST_WIDTH, LEAST_HEIGHT = 16, 5
"""Cells below which there is no room for a plot."""


@dataclass
class Curve:
    """One curve: points in the order of x, and how it is drawn."""

    points: Sequence[tuple[float, float]]
    role: int
    """By what its cells are coloured; the same number stands in the spans of the frame."""
    marker: str = "braille"
    """`braille` for a fine line, or a character for single points."""
    joined: bool = True
    limits: tuple[float, float] | None = field(default=None)
    """The range of y to show when it is wider than the points."""


class Span(NamedTuple):
    text: str
    role: int


Line = list[Span]


class Window(NamedTuple):
    """What a frame shows: ranges of both axes. `log` says that y is drawn by its logarithm."""

    left: float
    right: float
    low: float
    high: float
    log: bool = False
    axis: Axis = "steps"


def window(
    curves: Sequence[Curve], *, log: bool = False, end: float = 0.0, axis: Axis = "steps", zoom: Range = WHOLE
) -> Window | None:
    """The ranges that hold all points, moved out to round numbers so that they rarely change; None for no points.

    `end` is the last x that there will be, if that is known: the axis does not go beyond it. Ends of x that `zoom`
    names are kept as they are.
    """
    xs = [x for curve in curves for x, y in curve.points if y > 0 or not log]
    ys = [y for curve in curves for _, y in curve.points if y > 0 or not log]
    if not xs:
        return None
    left = min(0.0, min(xs)) if min(xs) < max(xs) / 4 else min(xs)
    right = round_end(max(xs)) if max(xs) > 0 else max(xs)
    if end >= max(xs):
        right = min(right, end)
    left = left if zoom.left is None else zoom.left
    right = right if zoom.right is None else zoom.right
    if right <= left:
        right = left + 1.0
    if not log:
        return Window(left, right, *round_limits(min(ys), max(ys)), axis=axis)
    low, high = min(ys), max(ys)
    low, high = (low / 1.5, high * 1.5) if low == high else (low, high)
    exponents = round_limits(math.log10(low), math.log10(high))
    return Window(left, right, 10 ** exponents[0], 10 ** exponents[1], log=True, axis=axis)


def frame(curves: Sequence[Curve], view: Window | None, width: int, height: int, across: str = "") -> list[Line]:
    """`height` lines of `width` cells: gutter with ticks, canvas, and the axis of x. Blank when there is no room.

    across: what x counts, which stands behind the last of its ticks; a time says itself what it counts.
    """
    if view is None or width < LEAST_WIDTH or height < LEAST_HEIGHT:
        return [[Span(" " * max(0, width), AXIS)] for _ in range(max(0, height))]
    rows = height - 2
    scale = (log_ticks if view.log else ticks)(view.low, view.high, max(2, rows // 3))
    spacing = 0.0 if view.log or len(scale) < 2 else scale[1] - scale[0]
    labels = {_row(value, view, rows): tick_label(value, spacing) for value in scale}
    gutter = max(map(len, labels.values()), default=0) + 1
    columns = width - gutter - 1
    if columns < LEAST_WIDTH // 2:
        return [[Span(" " * width, AXIS)] for _ in range(height)]
    canvas = _canvas(curves, view, columns, rows)
    lines = [_joined(_body_line(canvas[row], labels.get(row), gutter)) for row in range(rows)]
    return [*lines, *_x_axis(view, gutter, columns, across)]


def _body_line(cells: Line, label: str | None, gutter: int) -> Line:
    edge = Span(f"{label or '':>{gutter - 1}} {'┤' if label else '│'}", AXIS)
    if label is None:
        return [edge, *cells]
    line = [edge]
    column = 0
    for text, role in cells:
        blank = not text.strip()
        line.append(Span(_dotted(len(text), column), GRID) if blank else Span(text, role))
        column += len(text)
    return line


def _joined(line: Line) -> Line:
    """The line in as few spans as look the same: blanks have no colour of their own, and every span costs bytes."""
    spans: Line = []
    for text, role in line:
        if spans and (role == spans[-1].role or not text.strip()):
            spans[-1] = Span(spans[-1].text + text, spans[-1].role)
        elif spans and not spans[-1].text.strip():
            spans[-1] = Span(spans[-1].text + text, role)
        else:
            spans.append(Span(text, role))
    return spans


def _dotted(length: int, column: int) -> str:
    """A faint grid line; its dots stay where they are when a curve covers some of them."""
    return "".join("·" if (column + i) % 4 == 3 else " " for i in range(length))


def _x_axis(view: Window, gutter: int, columns: int, across: str) -> list[Line]:
    scale = (clock_ticks if view.axis == "time" else ticks)(view.left, view.right, max(2, columns // 12))
    spacing = scale[1] - scale[0] if len(scale) > 1 else 0.0
    axis, below = ["─"] * columns, [" "] * (columns + gutter + 1)
    free = 0
    for value in scale:
        column = min(columns - 1, int((value - view.left) / (view.right - view.left) * columns))
        axis[column] = "┬"
        label = duration(value) if view.axis == "time" and spacing >= 1 else tick_label(value, spacing)
        at = gutter + 1 + column - len(label) // 2
        for text in (_with_unit(label, view.axis, across), label) if value == scale[-1] else (label,):
            start = min(max(at, free), len(below) - len(text))
            if start >= free:
                below[start : start + len(text)] = text
                free = start + len(text) + 1
                break
    return [[Span(" " * gutter + "└" + "".join(axis), AXIS)], [Span("".join(below), AXIS)]]


def _with_unit(label: str, axis: Axis, across: str) -> str:
    """A tick of x with what it counts; that of a clock with what stands between its colons."""
    if axis == "time" and across:
        across = ("s", "min:s", "h:min:s")[label.count(":")]
    return f"{label} {across}".rstrip()


def _row(y: float, view: Window, rows: int) -> int:
    return min(rows - 1, int((1 - height_of(y, view)) * rows))


def height_of(y: float, view: Window) -> float:
    """Where y stands between the lower end of the window (0) and the upper (1)."""
    if view.log:
        return (math.log10(y) - math.log10(view.low)) / (math.log10(view.high) - math.log10(view.low))
    return (y - view.low) / (view.high - view.low)


_SGR = re.compile(r"\x1b\[([0-9;]*)m")
_one_at_a_time = threading.Lock()


def _canvas(curves: Sequence[Curve], view: Window, columns: int, rows: int) -> list[Line]:
    """The curves drawn by plotext on a canvas without frame, ticks and legend, its colours read back as roles."""
    import plotext

    with _one_at_a_time:
        plotext.terminal.limit(False, False)
        return _drawn(plotext, curves, view, columns, rows)


def _drawn(plotext: Any, curves: Sequence[Curve], view: Window, columns: int, rows: int) -> list[Line]:
    figure = plotext.figure
    figure.clear()
    figure.theme("colorless")
    figure.plot_size(columns, rows)
    figure.axes(False)
    figure.legend(False)
    for axis, side, end in (("x", "lower", columns), ("y", "left", rows)):
        ruler = figure.ruler(axis, side)
        ruler.frequency(0)
        ruler.alignment(lim="edge")
        ruler.lim(0, end)
    for curve in curves:
        points = [(x, y) for x, y in curve.points if (y > 0 or not view.log) and view.left <= x <= view.right]
        if points:
            _draw(plotext, curve, points, view, columns, rows)
    return [_spans(line, columns) for line in figure.build().string().split("\n")[:rows]]


def _draw(plotext: Any, curve: Curve, points: list[tuple[float, float]], view: Window, columns: int, rows: int) -> None:
    span, inside = view.right - view.left, 1 - 1e-6
    xs = [(x - view.left) / span * columns * inside for x, _ in points]
    ys = [min(1.0, max(0.0, height_of(y, view))) * rows * inside for _, y in points]
    marker = plotext.marker(curve.marker, plotext.pixel(foreground=curve.role + 1))
    signal = plotext.figure.signal(xs, ys, marker=marker)
    signal.lines(curve.joined)
    plotext.figure.draw(signal)


def _spans(line: str, columns: int) -> Line:
    """One line of plotext's output as spans of equal colour, exactly `columns` cells."""
    spans: Line = []
    role, left = AXIS, columns
    parts = _SGR.split(line)
    for index, part in enumerate(parts):
        if index % 2:
            codes = part.split(";")
            role = int(codes[2]) - 1 if codes[:2] == ["38", "5"] and len(codes) > 2 else AXIS
        elif part and left:
            text = part[:left]
            left -= len(text)
            if spans and spans[-1].role == role:
                spans[-1] = Span(spans[-1].text + text, role)
            else:
                spans.append(Span(text, role))
    return [*spans, Span(" " * left, AXIS)] if left else spans
