"""Runs side by side, over the list of runs: the settings that differ, and the last value of every metric."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from textual import work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content

from stages.store.errors import UserError
from stages.store.rundir import RunDir
from workbench.board.differences import columns_of, differences, last_values
from workbench.display import content, line
from workbench.keys import bind
from workbench.plots.curves import Track
from workbench.screens.base import Dialog
from workbench.screens.elo import Table
from workbench.widgets.picklist import cell
from workbench.wording import metric_text

NAME, NARROWEST = 20, 12
"""Cells of the column of names, and of a run's column at least."""
KEYS = "j k scroll · / filters · esc closes"
AROUND = 8
"""Cells of the window beside the table."""

Row = dict[str, Any]


class Columns(Table):
    HELP_TITLE = "The table"
    BINDINGS = [
        bind("compare.right", "l,right", "screen.turn(1)", "Right", "Further runs, where not all have room."),
        bind("compare.left", "h,left", "screen.turn(-1)", "Left", "The runs before."),
    ]


class CompareScreen(Dialog[None]):
    """A table over the screen. `workbench compare` prints the same, and a metric along the way."""

    CSS_PATH = "compare.tcss"
    AUTO_FOCUS = "Table"

    def __init__(self, runs: Sequence[RunDir]) -> None:
        super().__init__()
        self._runs = list(runs)
        self._found: tuple[list[str], list[Row], list[Row]] | None = None
        self._first = 0
        """Place of the first run of which there is a column."""

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = "side by side"
            box.border_subtitle = KEYS
            yield Columns()

    def on_mount(self) -> None:
        self._look()

    @work(thread=True, exclusive=True, group="look")
    def _look(self) -> None:
        try:
            columns, tracks = columns_of(self._runs), [Track(run.metrics) for run in self._runs]
            for track in tracks:
                track.catch_up()
            found = columns, differences(self._runs, columns), last_values(tracks, columns)
        except UserError as error:
            self.app.call_from_thread(self._say, [content(str(error), "$text-error")])
            return
        self.app.call_from_thread(self._take, found)

    def _take(self, found: tuple[list[str], list[Row], list[Row]]) -> None:
        self._found = found
        self._draw()

    def _draw(self) -> None:
        if self._found is None:
            return
        columns, settings, metrics = self._found
        width = self.app.size.width - AROUND
        self._first = min(self._first, max(0, len(columns) - room(width)))
        shown = columns[self._first : self._first + room(width)]
        self._say(list(table(shown, settings, metrics, width, left=len(columns) - len(shown))))
        at = f"runs {self._first + 1}-{self._first + len(shown)} of {len(columns)}: h l · "
        self.query_one(Vertical).border_subtitle = f"{at if len(shown) < len(columns) else ''}{KEYS}"

    def action_turn(self, by: int) -> None:
        """Show the runs further to one side."""
        self._first = max(0, self._first + by)
        self._draw()

    def _say(self, rows: Sequence[Content]) -> None:
        self.query_one(Table).show(rows)

    def on_resize(self) -> None:
        self._draw()


def room(width: int) -> int:
    """How many runs have a column in `width` cells."""
    return max(1, (width - NAME) // NARROWEST)


def table(
    shown: Sequence[str], settings: Sequence[Row], metrics: Sequence[Row], width: int, *, left: int = 0
) -> Iterator[Content]:
    """The rows, headings first, in `width` cells; `left` runs, for which there is no room, are counted."""
    each = min(30, (width - NAME) // len(shown))
    heads = [cell(line(column, "bold"), each - 1) for column in shown]
    yield _joined(Content.styled(f"+{left} more: h l" if left else "", "$text-warning"), heads)
    for title, rows, empty in (
        ("settings that differ", settings, "none: all was set the same"),
        ("last values", metrics, "none: no metric was logged"),
    ):
        yield Content.styled(title if rows else f"{title}: {empty}", "$primary")
        for row in rows:
            values = [cell(Content(metric_text(row["name"], row[column]) or "–"), each - 1) for column in shown]
            yield _joined(line(row["name"], "$text-muted"), values)


def _joined(name: Content, cells: Sequence[Content]) -> Content:
    return Content(" ").join([cell(name, NAME - 1), *cells])
