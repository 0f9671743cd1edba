"""The disagreements of a label set, to be settled one after the other.

A prompt on which two people, or one person asked again, do not agree is judged once more, afresh; that judgement then
speaks in the place of all rankings of the prompt, which stay in the file.
"""

from __future__ import annotations

from textual import on, work
from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import OptionList

from stages.store.errors import UserError
from stages.store.labels import open_labels
from stages.store.labels.figures import Conflict, figures
from stages.store.labels.judged import Choice, judged
from workbench.judging.label_sheet import named
from workbench.keys import bind
from workbench.screens.base import PlaceScreen
from workbench.widgets.picklist import PickList


class ConflictList(PickList):
    BINDINGS = [bind("settling.settle", "enter", "select", "Settle", "Judge the prompt once more; then the next.")]


class SettleScreen(PlaceScreen):
    """Choose which disagreement of a set to settle first; the others follow."""

    PLACE = "rank"
    AUTO_FOCUS = "#conflicts"
    CSS_PATH = "settling.tcss"
    BINDINGS = [bind("settling.back", "escape", "back", "Back", "Back to the label sets.")]

    def __init__(self, set_name: str) -> None:
        super().__init__()
        self.set_name = set_name

    def compose_body(self) -> ComposeResult:
        conflicts = ConflictList(id="conflicts", empty="Nobody disagrees about anything in this set.")
        conflicts.add_class("pane")
        conflicts.border_title = "To settle"
        yield conflicts

    def on_mount(self) -> None:
        self.show_trail(self.set_name, "conflicts")

    def on_screen_resume(self) -> None:
        super().on_screen_resume()
        self._look()

    @work(thread=True, exclusive=True, group="look")
    def _look(self) -> None:
        choice = Choice(sets=(self.set_name,), repeats=True, overruled=True)
        try:
            with open_labels(self.workbench.workspace.labels) as labels:
                found = figures(judged(labels, choice))
        except UserError as error:
            self.app.call_from_thread(self.workbench.show_error, error)
            return
        self.app.call_from_thread(self._show, [*found.conflicts, *found.self_conflicts])

    def _show(self, conflicts: list[Conflict]) -> None:
        """A prompt stands once in the list, whoever disagrees about it."""
        lines: dict[int, list[Content]] = {}
        for one in conflicts:
            lines.setdefault(one.place, []).append(named(one))
        entries = [(str(place), Content("   ").join(lines[place])) for place in sorted(lines)]
        self._places = [int(place) for place, _ in entries]
        self.query_one("#conflicts", PickList).show(entries)

    @on(OptionList.OptionSelected)
    def _selected(self) -> None:
        from workbench.screens.judge import JudgeScreen

        chosen = self.query_one("#conflicts", PickList).chosen
        if chosen is not None:
            first = self._places.index(int(chosen))
            self.app.push_screen(JudgeScreen(self.set_name, settle=self._places[first:]))

    def action_back(self) -> None:
        self.dismiss()
