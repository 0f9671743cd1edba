"""How strong checkpoints are by what people preferred, along their lineage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from textual import work
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from stages.store.errors import UserError
from stages.store.labels import open_labels
from stages.store.labels.elo import outcomes, standings
from stages.store.labels.judged import judged
from stages.store.workspace import Workspace
from workbench.display import content, line
from workbench.keys import SCROLL_KEYS
from workbench.models.lineage_table import Line, along_lineage
from workbench.screens.base import Dialog
from workbench.widgets.filter_field import Filterable
from workbench.widgets.picklist import cell

FIGURES = 54
"""Cells of a row behind the name."""
NONE_YET = "Nobody has compared two checkpoints yet: votes of duels, and rankings of what several wrote, show here."
HOW = """\
Bradley-Terry strengths, fitted to every pair that people ranked and did not take back: 1000 + 400 log10 of the \
strength; a tie is half a win; every checkpoint begins with one tie with an imaginary one of Elo 1000. Intervals are \
of 95 %."""


class Table(VerticalScroll, Filterable, can_focus=True):
    BINDINGS = [*SCROLL_KEYS]

    def __init__(self) -> None:
        super().__init__()
        self._rows: list[Content] = []

    def compose(self) -> ComposeResult:
        yield Static("…", id="standings")

    @property
    def has_entries(self) -> bool:
        return len(self._rows) > 1

    def show(self, rows: Sequence[Content]) -> None:
        """Show the headings, which come first, and the lines that pass the filter."""
        self._rows = list(rows)
        self.filter_changed()

    def filter_changed(self) -> None:
        shown = [row for place, row in enumerate(self._rows) if place == 0 or self.passes(row.plain)]
        self.query_one("#standings", Static).update(Content("\n").join(shown))


class EloScreen(Dialog[None]):
    """A table over the screen. `workbench labels elo` prints the same."""

    CSS_PATH = "elo.tcss"

    def __init__(self, workspace: Workspace) -> None:
        super().__init__()
        self._workspace = workspace

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = "Elo along the lineage"
            box.border_subtitle = "esc closes"
            yield Table()
            yield Static(Content(HOW), classes="muted")

    def on_mount(self) -> None:
        self._look()

    @work(thread=True, exclusive=True, group="look")
    def _look(self) -> None:
        try:
            lines = read_lines(self._workspace)
        except UserError as error:
            self.app.call_from_thread(self.show, [content(str(error), "$text-error")])
            return
        self.app.call_from_thread(self.show, list(table(lines, min(44, self.app.size.width - FIGURES - 8))))

    def show(self, rows: Sequence[Content]) -> None:
        """Show the lines of the table, the first of which names the columns."""
        self.query_one(Table).show(rows)


def read_lines(workspace: Workspace) -> list[Line]:
    """The table, from labels.db and the lineages on disk."""
    if not workspace.labels.is_file():
        return []
    with open_labels(workspace.labels) as labels:
        return along_lineage(workspace, standings(outcomes(judged(labels))))


def table(lines: Sequence[Line], width: int) -> Iterator[Content]:
    """A line for the headings and one for each checkpoint; `width` is that of the names."""
    if not lines:
        yield Content(NONE_YET)
        return
    heads = f"{'Elo':>6}  {'95 %':<15}{'won/tied/lost':<13} ties as halves"
    yield Content.styled(f"{'checkpoint':<{width}}{heads}", "$text-muted")
    for one, depth, _ in lines:
        name = cell(Content.assemble("  " * depth, line(one.checkpoint)), width)
        interval = f"{one.low:,.0f} to {one.high:,.0f}"
        counts = f"{one.won}/{one.tied}/{one.lost}"
        wins = f"{100 * (one.wins.value or 0):.0f} % ({100 * one.wins.low:.0f}–{100 * one.wins.high:.0f})"
        yield Content.assemble(name, (f"{one.elo:>6,.0f}", "bold"), f"  {interval:<15}{counts:<13} {wins}")
