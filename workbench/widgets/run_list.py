"""The list of runs: one line each, kept where it was while runs move on."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.events import Click
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from workbench.board.run_board import Entry
from workbench.display import displayable_line
from workbench.keys import bind
from workbench.plots.legend import middle_cut
from workbench.themes import MARKERS, STATUS_SYMBOLS, series_color
from workbench.widgets.component_styles import component_style
from workbench.widgets.filter_field import Filterable
from workbench.wording import standing

STANDING = 12
"""Cells of the last column, so that the columns before it stand straight."""

Row = list[tuple[str, str]]
"""Pieces of a line: mark, symbol, name, stage and standing, each a text and the name of its colour."""


class RunList(ScrollView, Filterable, can_focus=True, inherit_bindings=False):
    """Runs, the newest first, with their live state. Only lines that changed are painted."""

    filter_hint = "words of name, stage, status, dataset"

    HELP_TITLE = "The list of runs"
    COMPONENT_CLASSES = {"run-list--cursor", "run-list--held", "run-list--muted"} | {
        f"run-list--{status}" for status in STATUS_SYMBOLS
    }
    DEFAULT_CSS = """
    RunList {
        height: 1fr;

        & > .run-list--cursor { background: $primary 15%; text-style: bold; }
        &:ansi > .run-list--cursor { background: ansi_default; text-style: bold reverse; }
        & > .run-list--held { background: $foreground 8%; }
        & > .run-list--muted, & > .run-list--stopped, & > .run-list--queued { color: $foreground 60%; }
        & > .run-list--running { color: $accent; }
        & > .run-list--paused { color: $warning; }
        & > .run-list--finished { color: $success; }
        & > .run-list--failed, & > .run-list--lost { color: $error; }
    }
    """
    BINDINGS = [
        bind("list.down", "j,down", "cursor_down", "Down", "One entry down.", show=False),
        bind("list.up", "k,up", "cursor_up", "Up", "One entry up.", show=False),
        bind("list.first", "g,home", "first", "First", "To the first entry.", show=False),
        bind("list.last", "G,end", "last", "Last", "To the last entry.", show=False),
        bind("list.page_down", "pagedown", "page(1)", "Page down", "A page down.", show=False),
        bind("list.page_up", "pageup", "page(-1)", "Page up", "A page up.", show=False),
        bind("list.open", "enter", "open", "Open", "Open what the cursor is on."),
    ]

    cursor: reactive[int] = reactive(0, repaint=False)

    @dataclass
    class Highlighted(Message):
        """The cursor stands on another run now, or on none."""

        entry: Entry | None

    @dataclass
    class Opened(Message):
        """A run was chosen with Enter or a second click."""

        entry: Entry

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002  (the name that Textual gives it)
        super().__init__(id=id)
        self._entries: list[Entry] = []
        self._rows: list[Row] = []
        self._told: str | None = None

    @property
    def entry(self) -> Entry | None:
        """The run under the cursor."""
        return self._entries[self.cursor] if 0 <= self.cursor < len(self._entries) else None

    def show(self, entries: Sequence[Entry], marks: Mapping[str, int] | None = None) -> None:
        """Show these runs; the cursor stays on its run.

        `marks` are places among the series, by run id: such a run wears the marker and the colour of its curve.
        """
        held = self.entry
        self._entries = list(entries)
        marks = marks or {}
        rows = [_row(entry, marks.get(entry.run.id), bool(marks)) for entry in entries]
        before, self._rows = self._rows, rows
        if len(rows) != len(before):
            self.virtual_size = Size(0, len(rows))
            self.refresh()
        else:
            changed = [y for y, (old, new) in enumerate(zip(before, rows, strict=True)) if old != new]
            if changed:
                self.refresh(*map(self._line_region, changed))
        at = next((i for i, entry in enumerate(entries) if held and entry.run.id == held.run.id), None)
        self.cursor = at if at is not None else min(self.cursor, max(0, len(rows) - 1))
        self._tell()

    def select(self, run_id: str) -> None:
        """Put the cursor on a run, if it is here."""
        self.cursor = next((i for i, entry in enumerate(self._entries) if entry.run.id == run_id), self.cursor)

    def validate_cursor(self, cursor: int) -> int:
        return max(0, min(cursor, len(self._rows) - 1))

    def watch_cursor(self, before: int, now: int) -> None:
        self.refresh(self._line_region(before), self._line_region(now))
        self.scroll_to_region(Region(0, now, 1, 1), animate=False, force=True, immediate=True)
        self._tell()

    def render_line(self, y: int) -> Strip:
        at = y + self.scroll_offset.y
        width = self.size.width
        if at >= len(self._rows):
            return Strip.blank(width, self.rich_style)
        base = self.rich_style
        if at == self.cursor:
            base += self._style("cursor" if self.has_focus else "held")
        row = fit(self._rows[at], width)
        segments = [Segment(text, base + self._style(self._colour(name, at))) for text, name in row]
        return Strip(segments).adjust_cell_length(width, base)

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def on_click(self, event: Click) -> None:
        at = event.y + self.scroll_offset.y
        if at < len(self._rows):
            self.cursor = at
            if event.chain > 1:
                self.action_open()

    def action_cursor_down(self) -> None:
        self.cursor += 1

    def action_cursor_up(self) -> None:
        self.cursor -= 1

    def action_first(self) -> None:
        self.cursor = 0

    def action_last(self) -> None:
        self.cursor = len(self._rows) - 1

    def action_page(self, by: int) -> None:
        self.cursor += by * max(1, self.size.height - 1)

    def action_open(self) -> None:
        if self.entry:
            self.post_message(self.Opened(self.entry))

    def _tell(self) -> None:
        now = self.entry.run.id if self.entry else None
        if now != self._told:
            self._told = now
            self.post_message(self.Highlighted(self.entry))

    def _colour(self, name: str, at: int) -> str:
        """The colour `name`, or none under the cursor, whose ground says enough, where it could not be read on that."""
        few = self.app.no_color or self.app.current_theme.ansi
        return "" if at == self.cursor and (few or name == "muted") else name

    def _line_region(self, at: int) -> Region:
        return Region(0, at - self.scroll_offset.y, self.size.width, 1)

    def _style(self, name: str) -> Style:
        if name.isdigit():
            colour = Color.parse(series_color(self.app.current_theme, int(name)))
            return Style(color=colour.rich_color)
        return component_style(self, f"run-list--{name}") if name else Style()


def _row(entry: Entry, place: int | None, marking: bool) -> Row:
    """How a run is shown; with room for marks while any run has one."""
    loud = entry.live or entry.status in ("failed", "lost", "paused")
    mark = " " if place is None else MARKERS[place]
    return [
        (f" {mark}" if marking else "", "" if place is None else str(place)),
        (f" {STATUS_SYMBOLS[entry.status]} ", entry.status),
        ("★ " * entry.notes.bookmarked + displayable_line(entry.spec.name), "muted" if entry.notes.archived else ""),
        (displayable_line(entry.spec.stage), "muted"),
        (f"{_standing(entry):>{STANDING}}", entry.status if loud else "muted"),
    ]


def _standing(entry: Entry) -> str:
    """Where it stands; when a finished one was started."""
    if entry.status == "finished":
        return time.strftime("%d %b %H:%M", time.localtime(entry.spec.created))
    return standing(entry.state, entry.status)


def fit(row: Row, width: int) -> Row:
    """The row in `width` cells: the name gives way first, and the stage is left out of a narrow list."""
    mark, symbol, name, stage, standing = row
    right = cell_len(standing[0]) + 2
    stage_width = 10 if width >= 40 else 0
    room = max(4, width - cell_len(mark[0] + symbol[0]) - stage_width - right)
    return [
        mark,
        symbol,
        (set_cell_size(middle_cut(name[0], room - 1), room - 1) + " ", name[1]),
        (_cut(stage[0], stage_width), stage[1]),
        (f" {standing[0]} ", standing[1]),
    ]


def _cut(text: str, width: int) -> str:
    if cell_len(text) <= width:
        return set_cell_size(text, width)
    return set_cell_size(text, width - 1) + "…" if width else ""
