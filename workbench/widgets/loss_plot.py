"""A plot of curves that repaints only the cells that changed: a few hundred bytes a tick over SSH."""

from __future__ import annotations

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from workbench.display import displayable_line
from workbench.picture import FAINT, Picture
from workbench.plot import AXIS, GRID, Line, Span, frame, window
from workbench.themes import series_colors

TITLE, VALUE = -3, -4
"""Roles of words in the line above the plot."""


class LossPlot(Widget):
    """Shows a Picture: a line of title, key and values, and below it the curves in a frame with ticks."""

    DEFAULT_CSS = """
    LossPlot {
        width: 1fr;
        height: 1fr;
        min-height: 3;
    }
    """

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002  (the name that Textual gives it)
        super().__init__(id=id)
        self._picture = Picture()
        self._lines: list[Line] = []
        self._styles: dict[int, Style] = {}

    def show(self, picture: Picture) -> None:
        """Draw `picture`; cells that stay the same are not sent to the terminal again."""
        self._picture = picture
        self._redraw()

    def on_resize(self) -> None:
        self._lines = []
        self._redraw()

    def render_line(self, y: int) -> Strip:
        """One line in the colours of the theme."""
        width = self.size.width
        if y >= len(self._lines):
            return Strip.blank(width, self.rich_style)
        strip = Strip(Segment(span.text, self._style(span.role)) for span in self._lines[y])
        return strip.adjust_cell_length(width, self.rich_style)

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._styles.clear()

    def _redraw(self) -> None:
        width, height = self.size
        if width <= 0 or height <= 0:
            return
        before, self._lines = self._lines, self._build(width, height)
        if len(before) != len(self._lines):
            self.refresh()
            return
        regions = [
            Region(first, y, last - first, 1)
            for y, (old, new) in enumerate(zip(before, self._lines, strict=True))
            if old != new
            for first, last in [_changed(old, new, width) if y else (0, width)]
        ]
        if regions:
            self.refresh(*regions)

    def _build(self, width: int, height: int) -> list[Line]:
        picture = self._picture
        view = window(picture.curves, log=picture.log, end=picture.end)
        lines = [_header(picture), *frame(picture.curves, view, width, height - 1)]
        if view is None and picture.empty:
            lines[height // 2] = [Span(displayable_line(picture.empty).center(width), TITLE)]
        return lines[:height]

    def _style(self, role: int) -> Style:
        style = self._styles.get(role)
        if style is None:
            style = self._styles[role] = self.rich_style + self._colour(role)
        return style

    def _colour(self, role: int) -> Style:
        ansi = self.app.current_theme.ansi or self.app.theme.endswith("ansi")
        if role in (AXIS, GRID, TITLE):
            if ansi:
                return Style(dim=True)
            share = {AXIS: 0.45, GRID: 0.2, TITLE: 0.75}[role]
            return Style(color=self._blend(self.colors[3], share).rich_color)
        if role == VALUE:
            return Style(bold=True)
        colours = series_colors(self.app.current_theme)
        colour = Color.parse(colours[role % FAINT % len(colours)])
        if role < FAINT:
            return Style(color=colour.rich_color)
        return Style(color=colour.rich_color, dim=True) if ansi else Style(color=self._blend(colour, 0.4).rich_color)

    def _blend(self, colour: Color, share: float) -> Color:
        return self.colors[2].blend(colour, share)


def _header(picture: Picture) -> Line:
    spans = [Span(displayable_line(picture.title) + "   ", VALUE)]
    for key in picture.keys:
        spans += [Span(f"{key.marker} ", key.role)] if key.marker else []
        spans += [Span(displayable_line(key.name) + " ", TITLE), Span(f"{key.value}   ", VALUE)]
    return [*spans, Span(picture.note, AXIS)] if picture.note else spans


def _changed(old: Line, new: Line, width: int) -> tuple[int, int]:
    """First and one past the last cell in which two lines of `width` cells differ. All cells hold one character."""
    before = [(char, span.role) for span in old for char in span.text]
    after = [(char, span.role) for span in new for char in span.text]
    if not len(before) == len(after) == width:
        return 0, width
    differ = [x for x in range(width) if before[x] != after[x]]
    return differ[0], differ[-1] + 1
