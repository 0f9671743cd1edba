"""A table of rows to choose from, with hjkl: the row under the cursor keeps it while rows change and move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text
from textual import on
from textual.coordinate import Coordinate
from textual.events import Click
from textual.message import Message
from textual.widgets import DataTable

from workbench.display import displayable_line
from workbench.keys import bind
from workbench.widgets.filter_field import Filterable

WIDEST = 44
"""Cells of a column at most."""


class RowTable(DataTable[Text], Filterable):
    """`show` fills it; numbers stand at the right. All text may be foreign."""

    HELP_TITLE = "The table"
    BINDINGS = [
        bind("list.down", "j,down", "cursor_down", "Down", "The next row.", show=False),
        bind("list.up", "k,up", "cursor_up", "Up", "The row before.", show=False),
        bind("list.left", "h,left", "scroll_left", "Left", "Scroll to the left.", show=False),
        bind("list.right", "l,right", "scroll_right", "Right", "Scroll to the right.", show=False),
        bind("list.first", "g,home", "scroll_top", "First", "To the first row.", show=False),
        bind("list.last", "G,end", "scroll_bottom", "Last", "To the last row.", show=False),
        bind("list.open", "enter", "select_cursor", "Open", "Open the row."),
    ]

    @dataclass
    class Opened(Message):
        """Enter was pressed on a row, or it was clicked twice."""

        key: str

    @dataclass
    class Moved(Message):
        """The cursor stands on another row."""

        key: str

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002  (the name that Textual gives it)
        super().__init__(id=id, cell_padding=1, cursor_type="row")
        self._shown: tuple[list[str], list[tuple[str, list[str]]]] = ([], [])
        self._all: tuple[Sequence[str], Sequence[tuple[str, Sequence[str]]], int] = ((), (), 0)

    @property
    def chosen(self) -> str | None:
        """The key of the row under the cursor."""
        keys = [key for key, _ in self._shown[1]]
        at = self.cursor_coordinate.row
        return keys[at] if 0 <= at < len(keys) else None

    def show(self, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], *, first: int = 0) -> None:
        """Show the rows (key, cells) that pass the filter, the first `first` of all bold.

        Nothing is redrawn when nothing changed.
        """
        self._all = columns, rows, first
        wanted = (list(columns), [(key, list(cells)) for key, cells in rows if self.passes(" ".join(cells))])
        strong = {key for key, _ in rows[:first]}
        if wanted == self._shown:
            return
        chosen, left = self.chosen, self.scroll_x
        self._shown = wanted
        self.clear(columns=True)
        right = [_numbers([cells[place] for _, cells in wanted[1]]) for place in range(len(columns))]
        for place, name in enumerate(columns):
            width = max([cell_len(_cut(name)), *(cell_len(_cut(cells[place])) for _, cells in wanted[1])])
            self.add_column(Text(_cut(name), no_wrap=True), width=width)
        for key, cells in wanted[1]:
            style = Style(bold=True) if key in strong else Style()
            self.add_row(
                *(
                    Text(_cut(cell), style, justify="right" if is_right else "left", no_wrap=True)
                    for cell, is_right in zip(cells, right, strict=True)
                )
            )
        keys = [key for key, _ in wanted[1]]
        if keys:
            self.cursor_coordinate = Coordinate(keys.index(chosen) if chosen in keys else 0, 0)
            self.scroll_x = left

    @property
    def has_entries(self) -> bool:
        return bool(self._all[1])

    def filter_changed(self) -> None:
        columns, rows, first = self._all
        self.show(columns, rows, first=first)

    def on_click(self, event: Click) -> None:
        """A click goes to a row, a second one opens it, as in every list."""
        row = event.style.meta.get("row", -1)
        if row < 0 or event.style.meta.get("out_of_bounds"):
            return
        event.prevent_default()
        self.move_cursor(row=row)
        if event.chain > 1:
            self.action_select_cursor()

    @on(DataTable.RowSelected)
    def _selected(self, event: DataTable.RowSelected) -> None:
        event.stop()
        if self.chosen is not None:
            self.post_message(self.Opened(self.chosen))

    @on(DataTable.RowHighlighted)
    def _highlighted(self, event: DataTable.RowHighlighted) -> None:
        event.stop()
        if self.chosen is not None:
            self.post_message(self.Moved(self.chosen))


def _cut(text: str) -> str:
    shown = displayable_line(text)
    return shown if len(shown) <= WIDEST else shown[: WIDEST - 1] + "…"


def _numbers(cells: Sequence[str]) -> bool:
    return all(not cell or cell[0].isdigit() or cell[0] in "-−" for cell in cells)
