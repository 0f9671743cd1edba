"""A plot as a picture: what is on the screen, as SVG for papers, cards and the web."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from workbench.display import displayable_line
from workbench.plots.picture import FAINT, PLAIN, Picture
from workbench.plots.plot import Curve, Window, height_of, window
from workbench.plots.series import clock_ticks, log_ticks, tick_label, ticks
from workbench.themes import SERIES_LIGHT
from workbench.wording import duration

WIDTH, HEIGHT = 960, 540
LEFT, RIGHT, TOP, BOTTOM = 72, 24, 56, 48
INK, GREY, GRID, PAPER = "#1B1F24", "#5F6368", "#E3E3DE", "#FFFFFF"
FONT = "font-family='DejaVu Sans, Helvetica, Arial, sans-serif'"
MARK = 13
"""Size of a marker."""


def svg_of(picture: Picture) -> str:
    """The picture as a whole SVG document, on a white ground. A picture without points says so."""
    view = window(picture.curves, log=picture.log, end=picture.end, axis=picture.scope.axis, zoom=picture.scope.range)
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' width='{WIDTH}' height='{HEIGHT}'>",
        f"<rect width='{WIDTH}' height='{HEIGHT}' fill='{PAPER}'/>",
        _text(LEFT, 26, f"{picture.title}, {picture.unit}".removesuffix(", "), size=17, weight="bold"),
        _text(WIDTH - RIGHT, 26, picture.note, colour=GREY, anchor="end"),
    ]
    if view is None:
        return "\n".join([*parts, _text(LEFT, HEIGHT / 2, picture.empty or "no curve", colour=GREY), "</svg>", ""])
    parts += [*_legend(picture), *_grid(view)]
    if picture.across:
        parts.append(_text(WIDTH - RIGHT, HEIGHT - 8, picture.across, colour=GREY, anchor="end"))
    for curve in picture.curves:
        parts += _curve(curve, view)
    return "\n".join([*parts, "</svg>", ""])


def _legend(picture: Picture) -> Iterator[str]:
    x = float(LEFT)
    for key in picture.keys:
        text = f"{key.name} {key.value}".strip()
        if key.marker:
            yield _text(x, 46, key.marker, colour=_colour(key.role), size=MARK)
            x += 18
        yield _text(x, 46, text, colour=INK if key.role >= 0 else GREY)
        x += 8.0 * len(text) + 22


def _grid(view: Window) -> Iterator[str]:
    scale = (log_ticks if view.log else ticks)(view.low, view.high, 6)
    spacing = 0.0 if view.log or len(scale) < 2 else scale[1] - scale[0]
    for value in scale:
        y = _y(value, view)
        yield f"<line x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{y:.1f}' y2='{y:.1f}' stroke='{GRID}'/>"
        yield _text(LEFT - 8, y + 4, tick_label(value, spacing), colour=GREY, anchor="end")
    across = (clock_ticks if view.axis == "time" else ticks)(view.left, view.right, 8)
    spacing = across[1] - across[0] if len(across) > 1 else 0.0
    floor = HEIGHT - BOTTOM
    for value in across:
        x = _x(value, view)
        label = duration(value) if view.axis == "time" and spacing >= 1 else tick_label(value, spacing)
        yield f"<line x1='{x:.1f}' x2='{x:.1f}' y1='{floor}' y2='{floor + 5}' stroke='{GREY}'/>"
        yield _text(x, floor + 20, label, colour=GREY, anchor="middle")
    yield f"<path d='M{LEFT} {TOP}V{floor}H{WIDTH - RIGHT}' fill='none' stroke='{GREY}'/>"


def _curve(curve: Curve, view: Window) -> Iterator[str]:
    faint = curve.role >= FAINT
    colour = _colour(curve.role - FAINT if faint else curve.role)
    points = [
        (_x(x, view), _y(y, view)) for x, y in curve.points if view.left <= x <= view.right and (y > 0 or not view.log)
    ]
    if not points:
        return
    if curve.joined:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        look = f"fill='none' stroke='{colour}' stroke-width='{1 if faint else 2}' stroke-linejoin='round'"
        yield f"<polyline points='{path}' {look} stroke-opacity='{0.3 if faint else 1}'/>"
        return
    for x, y in points:
        yield _text(x, y + MARK / 3, curve.marker, colour=colour, size=MARK, anchor="middle")


def _colour(role: int) -> str:
    return INK if role == PLAIN or role < 0 else SERIES_LIGHT[role % len(SERIES_LIGHT)]


def _x(value: float, view: Window) -> float:
    return LEFT + (value - view.left) / (view.right - view.left) * (WIDTH - LEFT - RIGHT)


def _y(value: float, view: Window) -> float:
    share = min(1.0, max(0.0, height_of(value, view)))
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _text(
    x: float, y: float, text: str, *, colour: str = INK, size: int = 13, anchor: str = "start", weight: str = "normal"
) -> str:
    shown = escape(displayable_line(text))
    look = f"{FONT} font-size='{size}' font-weight='{weight}' text-anchor='{anchor}' fill='{colour}'"
    return f"<text x='{x:.1f}' y='{y:.1f}' {look}>{shown}</text>"


def legible_name(titles: Sequence[str]) -> str:
    """A file's name made of titles: letters, digits, dots and dashes alone."""
    kept = (each if each.isascii() and (each.isalnum() or each in "-.") else "-" for each in "-".join(titles))
    return "".join(kept).strip("-.")[:80]
