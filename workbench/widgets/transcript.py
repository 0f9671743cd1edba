"""The transcript of a chat: text that grows at its end, drawn line by line, so that a long answer costs no more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.events import Resize
from textual.geometry import Region, Size
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip

from workbench.display import displayable
from workbench.keys import SCROLL_KEYS
from workbench.widgets.component_styles import component_style
from workbench.widgets.flow import Flow, Line, Span

TABS = 4
"""Columns of a tab."""


class Transcript(ScrollView, can_focus=True):
    """Shows text in one of STYLES as it comes. Follows the end while the end is in view."""

    BINDINGS = [*SCROLL_KEYS]
    STYLES: ClassVar[tuple[str, ...]] = ("prompt", "answer", "note", "error", "heading")
    COMPONENT_CLASSES = {f"transcript--{style}" for style in STYLES}

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._written: list[Span] = []
        self._flow = Flow(80)
        self._styles: dict[str, Style] = {}
        self._ground: Style | None = None

    @property
    def allow_select(self) -> bool:
        return True

    @property
    def is_empty(self) -> bool:
        return not self._written

    @property
    def plain(self) -> str:
        """All that is shown, without line breaks of the window's width."""
        return "".join(text for text, _ in self._written)

    def write(self, text: str, style: str) -> None:
        """Append foreign text. Costs as much as the text is long, whatever is there already."""
        shown = displayable(text.replace("\r\n", "\n"), tabs=TABS)
        if not shown:
            return
        following, lines = self.is_vertical_scroll_end, len(self._flow.lines)
        self._written.append((shown, style))
        first = self._flow.add(shown, style)
        if len(self._flow.lines) != lines:
            self._resize_content()
        self.refresh_lines(first, len(self._flow.lines) - first)
        if following:
            self.scroll_end(animate=False, immediate=True, x_axis=False)

    def start_block(self) -> None:
        """Begin on a new line, one empty line below what is there."""
        if self._written:
            end = "".join(text for text, _ in self._written[-2:])[-2:]
            self.write("\n" * (2 - (len(end) - len(end.rstrip("\n")))), "answer")

    @property
    def spans(self) -> int:
        """How many pieces have been written: a mark to cut back to."""
        return len(self._written)

    def cut(self, mark: int) -> None:
        """Forget what was written since `spans` was `mark`. Wraps what stays anew."""
        del self._written[mark:]
        self._rewrap()

    def clear(self) -> None:
        """Forget everything."""
        self._written.clear()
        self._rewrap()

    def put(self, spans: Iterable[Span]) -> None:
        """Show this foreign text, each piece in its style, in the place of all that is there, from its beginning.

        The screen is laid out anew only where a scrollbar comes or goes: a layout paints every widget again.
        """
        before = len(self._flow.lines)
        pieces = [(displayable(text.replace("\r\n", "\n"), tabs=TABS), style) for text, style in spans]
        self._written = [piece for piece in pieces if piece[0]]
        self._flow = Flow(self.scrollable_content_region.width)
        for text, style in self._written:
            self._flow.add(text, style)
        height = self.scrollable_content_region.height
        if height and (before > height) == (len(self._flow.lines) > height):
            self.set_reactive(Transcript.virtual_size, self._content_size())
            self._scroll_update(self.virtual_size)
        else:
            self._resize_content()
        if self.scroll_offset.y:
            self.scroll_home(animate=False)
            self.refresh()
        else:
            self.refresh_lines(0, max(before, len(self._flow.lines)))

    def on_resize(self, event: Resize) -> None:
        if self._flow.width != max(1, self.scrollable_content_region.width):
            self._rewrap()

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._styles.clear()

    def render_lines(self, crop: Region) -> list[Strip]:
        self._ground = self.rich_style  # made of the styles of all that is above: once for all lines
        return super().render_lines(crop)

    def render_line(self, y: int) -> Strip:
        number = y + self.scroll_offset.y
        ground = self._ground if self._ground is not None else self.rich_style
        if number >= len(self._flow.lines):
            return Strip.blank(self.size.width, ground)
        segments = [Segment(text, ground + self._style(style)) for text, style in self._flow.lines[number]]
        strip = Strip(self._selected(number, segments))
        return strip.adjust_cell_length(self.size.width, ground).apply_offsets(0, number)

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        return selection.extract("\n".join(_text(line) for line in self._flow.lines)), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        self.refresh()

    def _selected(self, number: int, segments: list[Segment]) -> list[Segment]:
        """The line's segments with the part that the mouse selected marked."""
        selection = self.text_selection
        span = selection.get_span(number) if selection is not None else None
        if span is None:
            return segments
        length = sum(len(segment.text) for segment in segments)
        start, end = span[0], length if span[1] == -1 else span[1]
        mark = self.screen.get_component_rich_style("screen--selection")
        marked, at = [], 0
        for text, style, _ in segments:
            for begin, stop in ((0, start - at), (start - at, end - at), (end - at, len(text))):
                piece = text[max(0, begin) : max(0, stop)]
                inside = begin == start - at and stop == end - at
                if piece:
                    marked.append(Segment(piece, (style or Style()) + mark if inside else style))
            at += len(text)
        return marked

    def _style(self, name: str) -> Style:
        if name not in self._styles:
            self._styles[name] = component_style(self, f"transcript--{name}")
        return self._styles[name]

    def _rewrap(self) -> None:
        following = self.is_vertical_scroll_end
        self._flow = Flow(self.scrollable_content_region.width)
        for text, style in self._written:
            self._flow.add(text, style)
        self._resize_content()
        self.refresh()
        if following:
            self.scroll_end(animate=False, immediate=True, x_axis=False)

    def _resize_content(self) -> None:
        self.virtual_size = self._content_size()

    def _content_size(self) -> Size:
        return Size(self._flow.width, len(self._flow.lines))


def _text(line: Line) -> str:
    return "".join(text for text, _ in line)
