"""What checkpoints scored: a line a measure, a column a checkpoint. The cursor chooses one of each."""

from __future__ import annotations

from collections.abc import Sequence

from rich.style import Style
from rich.text import Text
from textual.coordinate import Coordinate
from textual.widgets import DataTable

from stages.store.evaluations import Evaluation, columns
from workbench.display import displayable_line
from workbench.evaluating import best, cells, heading
from workbench.keys import bind
from workbench.widgets.filter_field import Filterable

HEADING = 22
"""Cells of a checkpoint's name."""


class MeasureTable(DataTable[Text], Filterable):
    """An evaluation as a table, with hjkl. What is best of its line is bold."""

    HELP_TITLE = "The table"
    BINDINGS = [
        bind("list.down", "j,down", "cursor_down", "Down", "The next measure.", show=False),
        bind("list.up", "k,up", "cursor_up", "Up", "The measure before.", show=False),
        bind("list.left", "h,left", "cursor_left", "Left", "The checkpoint before.", show=False),
        bind("list.right", "l,right", "cursor_right", "Right", "The next checkpoint.", show=False),
    ]

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002  (the name that Textual gives it)
        super().__init__(id=id, cell_padding=1)
        self.measures: Sequence[str] = ()
        """Those that pass the filter."""
        self._found: Evaluation | None = None

    @property
    def measure(self) -> str | None:
        """The measure under the cursor."""
        row = self.cursor_coordinate.row
        return self.measures[row] if 0 <= row < len(self.measures) else None

    def show(self, found: Evaluation) -> None:
        """Show an evaluation as far as it has come; the cursor stays where it is."""
        at, self._found = self.cursor_coordinate, found
        self.clear(columns=True)
        self.measures = [measure for measure in columns(found) if self.passes(measure)]
        for row in found.rows:
            self.add_column(Text(heading(displayable_line(row.checkpoint), HEADING), no_wrap=True))
        values = [cells(row) for row in found.rows]
        for measure in self.measures:
            top = best(found, measure)
            line = [
                Text(
                    displayable_line(value.get(measure, "")),
                    Style(bold=True) if place in top else Style(),
                    justify="right",
                    no_wrap=True,
                )
                for place, value in enumerate(values)
            ]
            self.add_row(*line, label=Text(displayable_line(measure)[:40], no_wrap=True))
        if self.measures:
            self.cursor_coordinate = Coordinate(
                min(at.row, len(self.measures) - 1), min(at.column, len(found.rows) - 1)
            )

    def filter_changed(self) -> None:
        if self._found is not None:
            self.show(self._found)

    def move(self, by: int) -> None:
        """The cursor to the measure `by` places further, around the end."""
        if self.measures:
            at = self.cursor_coordinate
            self.cursor_coordinate = Coordinate((at.row + by) % len(self.measures), at.column)
