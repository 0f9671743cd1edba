"""What a dataset's records are like, counted: lengths, sources, roles, labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from textual import work
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.widgets import Static

from stages.store.desk import DeskProgress
from stages.store.errors import UserError
from workbench.display import content, shortened
from workbench.keys import SCROLL_KEYS, bind
from workbench.screens.base import Dialog

BAR = 20
"""Cells of the longest bar."""


class Figures(VerticalScroll, can_focus=True):
    BINDINGS = [*SCROLL_KEYS]


class StatisticsScreen(Dialog[None]):
    """Asks the desk to count while one waits; escape leaves, and stops it."""

    CSS_PATH = "record_statistics.tcss"
    AUTO_FOCUS = "Figures"
    BINDINGS = [bind("statistics.close", "s,enter", "close", "Close", "Back to the records.")]

    def __init__(self, view: dict[str, Any]) -> None:
        """`view` is what every question to the desk names: dataset, split, filter."""
        super().__init__()
        self._view = view

    def compose(self) -> ComposeResult:
        with Vertical(id="statistics"), Figures():
            yield Static(content("Counting …"), id="figures")

    def on_mount(self) -> None:
        self.count()

    @work
    async def count(self) -> None:
        """Ask, and show the answer."""
        from workbench.app import WorkbenchApp

        app = self.app
        assert isinstance(app, WorkbenchApp)
        figures = self.query_one("#figures", Static)

        def progress(done: DeskProgress) -> None:
            if self.is_attached and done.total:
                figures.update(content(f"Counting … {done.done / done.total:.0%}   escape stops"))

        try:
            found = await app.desk.ask("records.statistics", on_progress=progress, **self._view)
        except UserError as error:
            figures.update(content(str(error), "$error"))
            return
        figures.update(content("\n".join(lines(found, self._view))))

    def action_close(self) -> None:
        self.dismiss()


def lines(found: dict[str, Any], view: dict[str, Any]) -> Iterator[str]:
    """The figures as lines of text; also for the command line."""
    of = f" for {view['filter']}" if view.get("filter") else ""
    yield f"{view['dataset']} · {view['split']}: {found['records']:,} records{of}, {found['characters']:,} characters"
    if found["lengths"]:
        yield ""
        yield "characters of a record"
        yield "  " + "   ".join(f"{name} {value:,}" for name, value in found["lengths"].items())
    for name, table in found["tables"].items():
        yield ""
        different = found["kinds"][name]
        yield name + (f": the most frequent of {different:,}" if different > len(table) else "")
        most = max(count for _, count in table)
        for value, count in table:
            bar = "█" * max(1, round(BAR * count / most))
            yield f"  {count:>12,}  {bar:<{BAR}}  {shortened(value, 48)}"
