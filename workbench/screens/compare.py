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
from workbench.differences import columns_of, differences, last_values
from workbench.display import content, line
from workbench.plots.curves import Track
from workbench.screens.base import Dialog
from workbench.screens.elo import Table
from workbench.widgets.picklist import cell
from workbench.wording import cell_text

NAME, NARROWEST = 20, 12
"""Cells of the column of names, and of a run's column at least."""
AROUND = 8
"""Cells of the window beside the table."""

Row = dict[str, Any]


class CompareScreen(Dialog[None]):
    """A table over the screen. `workbench compare` prints the same, and a metric along the way."""

    CSS_PATH = "compare.tcss"
    AUTO_FOCUS = "Table"

    def __init__(self, runs: Sequence[RunDir]) -> None:
        super().__init__()
        self._runs = list(runs)
        self._found: tuple[list[str], list[Row], list[Row]] | None = None

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = "side by side"
            box.border_subtitle = "j k scroll · / filters · esc closes"
            yield Table()

    def on_mount(self) -> None:
        self._look()

    @work(thread=True, exclusive=True, group="look")
    def _look(self) -> None:
        try:
            columns, tracks = columns_of(self._runs), [Track.of(run) for run in self._runs]
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
        if self._found is not None:
            self._say(list(table(*self._found, self.app.size.width - AROUND)))

    def _say(self, rows: Sequence[Content]) -> None:
        self.query_one(Table).show(rows)

    def on_resize(self) -> None:
        self._draw()


def table(columns: Sequence[str], settings: Sequence[Row], metrics: Sequence[Row], width: int) -> Iterator[Content]:
    """The rows, headings first, in `width` cells; runs for which there is no room are counted, not shown."""
    shown = columns[: max(1, (width - NAME) // NARROWEST)]
    each = min(30, (width - NAME) // len(shown))
    left = len(columns) - len(shown)
    heads = [cell(line(column, "bold"), each - 1) for column in shown]
    yield _joined(Content.styled(f"and {left} more: widen" if left else "", "$text-muted"), heads)
    for title, rows, empty in (
        ("settings that differ", settings, "none: all was set the same"),
        ("last values", metrics, "none: no metric was logged"),
    ):
        yield Content.styled(title if rows else f"{title}: {empty}", "$primary")
        for row in rows:
            values = [cell(Content(cell_text(row[column]) or "–"), each - 1) for column in shown]
            yield _joined(line(row["name"], "$text-muted"), values)


def _joined(name: Content, cells: Sequence[Content]) -> Content:
    return Content(" ").join([cell(name, NAME - 1), *cells])
