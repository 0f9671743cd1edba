"""A plot of curves that repaints only the cells that changed: a few hundred bytes a tick over SSH.

Frames are drawn in a thread, so that a key is never behind the 5 ms that a curve takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.segment import Segment
from rich.style import Style
from textual import on, work
from textual.color import Color
from textual.events import MouseScrollDown, MouseScrollUp
from textual.geometry import Region, Size
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from workbench.display import displayable_line
from workbench.plots.legend import TITLE, VALUE, legend
from workbench.plots.picture import FAINT, PLAIN, Picture
from workbench.plots.plot import AXIS, GRID, Line, Span, Window, frame, window
from workbench.themes import series_color

NEARER = 0.8
"""Share of what a plot shows that is left by a notch of the wheel."""


class LossPlot(Widget):
    """Shows a Picture: a line of title, key and values, and below it the curves in a frame with ticks.

    The wheel does what the screen's `zoom` does.
    """

    DEFAULT_CSS = """
    LossPlot {
        width: 1fr;
        height: 1fr;
        min-height: 3;
    }
    """

    @dataclass
    class Drawn(Message):
        """A frame is ready: its lines, for a plot of `size`, and where they differ from those on screen."""

        lines: list[Line]
        size: Size
        changed: Sequence[Region]

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002  (the name that Textual gives it)
        super().__init__(id=id)
        self._picture = Picture()
        self._lines: list[Line] = []
        self._styles: dict[int, Style] = {}
        self._drawing = self._outdated = False

    def show(self, picture: Picture) -> None:
        """Draw `picture` soon; cells that stay the same are not sent to the terminal again."""
        self._picture = picture
        self._redraw()

    @property
    def picture(self) -> Picture:
        """What is shown."""
        return self._picture

    @property
    def extent(self) -> tuple[float, float] | None:
        """The range of x that the picture shows; None when it shows nothing."""
        view = _window(self._picture)
        return (view.left, view.right) if view else None

    def on_resize(self) -> None:
        self._redraw()

    async def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        event.stop()
        await self.run_action(f"screen.zoom({NEARER})")

    async def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        event.stop()
        await self.run_action(f"screen.zoom({1 / NEARER})")

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
        """Draw the picture; while a frame is being drawn, once that is done, and then only the newest picture."""
        self._outdated = self._drawing
        if not self._drawing and self.size.area:
            self._drawing = True
            self._draw(self._picture, self.size, self._lines)

    @work(thread=True, group="plot")
    def _draw(self, picture: Picture, size: Size, before: list[Line]) -> None:
        lines = build(picture, size.width, size.height)
        self.post_message(self.Drawn(lines, size, _differences(before, lines, size)))

    @on(Drawn)
    def _drawn(self, event: Drawn) -> None:
        event.stop()
        self._drawing = False
        self._lines = event.lines
        if event.changed:
            self.refresh(*event.changed)
        if self._outdated or event.size != self.size:
            self._redraw()

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
        if role == PLAIN:
            return Style()
        colour = Color.parse(series_color(self.app.current_theme, role % FAINT))
        if role < FAINT:
            return Style(color=colour.rich_color)
        return Style(color=colour.rich_color, dim=True) if ansi else Style(color=self._blend(colour, 0.4).rich_color)

    def _blend(self, colour: Color, share: float) -> Color:
        return self.colors[2].blend(colour, share)


def build(picture: Picture, width: int, height: int) -> list[Line]:
    """The header and the frame of a picture: `height` lines. For any thread."""
    view = _window(picture)
    lines = [legend(picture, width), *frame(picture.curves, view, width, height - 1, picture.across)]
    if view is None and picture.empty:
        lines[height // 2] = [Span(displayable_line(picture.empty).center(width), TITLE)]
    return lines[:height]


def _window(picture: Picture) -> Window | None:
    axis, zoom = picture.scope
    return window(picture.curves, log=picture.log, end=picture.end, axis=axis, zoom=zoom)


def _differences(old: list[Line], new: list[Line], size: Size) -> list[Region]:
    """The parts of lines that differ; all of the plot when it has another height."""
    if len(old) != len(new):
        return [size.region]
    return [
        Region(first, y, last - first, 1)
        for y, (before, after) in enumerate(zip(old, new, strict=True))
        if before != after
        for first, last in [_changed(before, after, size.width) if y else (0, size.width)]
    ]


def _changed(old: Line, new: Line, width: int) -> tuple[int, int]:
    """First and one past the last cell in which two lines of `width` cells differ. All cells hold one character."""
    before = [(char, span.role) for span in old for char in span.text]
    after = [(char, span.role) for span in new for char in span.text]
    if not len(before) == len(after) == width:
        return 0, width
    differ = [x for x in range(width) if before[x] != after[x]]
    return differ[0], differ[-1] + 1
