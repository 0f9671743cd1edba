"""A list of records of any length: a line each, of which only those in view exist."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.segment import Segment
from rich.style import Style
from textual.events import Click, Resize
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from workbench.display import displayable_line
from workbench.keys import bind
from workbench.records.pages import Pages
from workbench.widgets.component_styles import component_style
from workbench.widgets.filter_field import Filterable

Line = tuple[int, Sequence[Sequence[str]]]
"""The number of a record in its split, from 0, and pieces of text with what they are."""

ROLES = ("system", "user", "assistant", "tool")


class RecordList(ScrollView, Filterable, can_focus=True):
    """Shows the lines of `Pages`; a line that is not here yet shows its place alone."""

    FILTERS_AT_ONCE = False
    STYLES = (*ROLES, "rank", "label", "number", "cursor", "held")
    COMPONENT_CLASSES = {f"record-list--{style}" for style in STYLES}
    BINDINGS = [
        bind("list.down", "j,down", "move(1)", "Down", "One entry down.", show=False),
        bind("list.up", "k,up", "move(-1)", "Up", "One entry up.", show=False),
        bind("list.first", "home", "to(0)", "First", "To the first entry.", show=False),
        bind("list.last", "G,end", "to(-1)", "Last", "To the last entry.", show=False),
        bind("list.page_down", "pagedown", "page(1)", "Page down", "A page down.", show=False),
        bind("list.page_up", "pageup", "page(-1)", "Page up", "A page up.", show=False),
        bind("list.open", "enter", "open", "Open", "Open what the cursor is on."),
    ]

    cursor: reactive[int] = reactive(0, repaint=False)

    @dataclass
    class Opened(Message):
        """A record was chosen with Enter or a second click."""

        at: int

    @dataclass
    class Moved(Message):
        """The cursor stands elsewhere."""

        at: int

    def __init__(self) -> None:
        super().__init__()
        self._pages: Pages[Line] | None = None
        self._styles: dict[str, Style] = {}

    @property
    def total(self) -> int:
        return self._pages.total if self._pages else 0

    def show(self, pages: Pages[Line], cursor: int = 0) -> None:
        """Show other pages, with the cursor at a place of theirs."""
        if self._pages is not None:
            self._pages.close()
        self._pages = pages
        self.virtual_size = Size(0, pages.total)
        self.cursor = cursor
        self.refresh()
        self.call_after_refresh(self._follow)

    def has_row(self, at: int) -> bool:
        """Whether the line of a place is here."""
        return self._pages is not None and self._pages.row(at) is not None

    def arrived(self) -> None:
        """Paint what has come."""
        self.refresh()

    def validate_cursor(self, cursor: int) -> int:
        return max(0, min(cursor, self.total - 1))

    def watch_cursor(self, before: int, now: int) -> None:
        self.refresh(*(Region(0, at - self.scroll_offset.y, self.size.width, 1) for at in (before, now)))
        self._follow()
        self.post_message(self.Moved(now))

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._want()

    def on_resize(self, event: Resize) -> None:
        self._follow()

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._styles.clear()

    def render_line(self, y: int) -> Strip:
        at, width, ground = y + self.scroll_offset.y, self.size.width, self.rich_style
        if self._pages is None or at >= self.total:
            return Strip.blank(width, ground)
        if at == self.cursor:
            ground += self._style("cursor" if self.has_focus else "held")
        row = self._pages.row(at)
        digits = len(f"{self.total:,}")
        number = f"{row[0] + 1 if row else at + 1:>{digits},} "
        segments = [Segment(number, ground + self._style("number"))]
        pieces = row[1] if row else [("…", "number")]
        segments += [Segment(displayable_line(text), ground + self._style(style)) for text, style in pieces]
        return Strip(segments).adjust_cell_length(width, ground)

    def on_unmount(self) -> None:
        if self._pages is not None:
            self._pages.close()

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def on_click(self, event: Click) -> None:
        at = event.y + self.scroll_offset.y
        if at < self.total:
            self.cursor = at
            if event.chain > 1:
                self.action_open()

    def action_move(self, by: int) -> None:
        self.cursor += by

    def action_to(self, at: int) -> None:
        """To a place from the beginning, or from the end where it is negative."""
        self.cursor = at if at >= 0 else self.total + at

    def action_page(self, by: int) -> None:
        self.cursor += by * max(1, self.size.height - 1)

    def action_open(self) -> None:
        if self.total:
            self.post_message(self.Opened(self.cursor))

    def _follow(self) -> None:
        """Bring the cursor into view, and fetch what is seen there."""
        if self.total:
            self.scroll_to_region(Region(0, self.cursor, 1, 1), animate=False, force=True, immediate=True)
        self._want()

    def _want(self) -> None:
        if self._pages is not None:
            top = self.scroll_offset.y
            self._pages.want(top, top + max(1, self.size.height) - 1)

    def _style(self, name: str) -> Style:
        if name not in self._styles:
            known = name in self.STYLES
            self._styles[name] = component_style(self, f"record-list--{name}") if known else Style()
        return self._styles[name]
