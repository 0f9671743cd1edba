"""Rank: the label sets, how far each is, and how good its labels are.

sets ────────────────╮╭ world-rank ────────────────────────────────
│ world-rank   13/50 ││ rank · 50 prompts · 13 judged by you
│ answers       0/20 ││ 41 labels an hour, 7.2 s (median)
─────────────────────╯│ best by place   1st 26 % …
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from itertools import takewhile

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.worker import get_current_worker

from stages.store.errors import UserError
from stages.store.labels import LabelSet, open_labels
from stages.store.labels.figures import Figures, Progress, figures, progress
from stages.store.labels.judged import Choice, Judgement, judged
from workbench.display import line, looks_same
from workbench.judging.label_sheet import BAR, SHORT, sheet_of
from workbench.judging.labelling import annotator_name
from workbench.judging.taking_in import left_out_of, take_in_finished
from workbench.keys import SCROLL_KEYS, bind
from workbench.screens.base import PlaceScreen
from workbench.widgets.filter_field import NO_MATCH
from workbench.widgets.picklist import PickList

EMPTY = """\
There is nothing to judge yet. n makes a label set from a dataset: preferences are ranked or rated, \
prompts are answered.

s has checkpoints write completions to judge; their label set appears here when they are done.

The starter examples are a way to begin: in Data, build starter:rankings; then come back and press n."""

NARROW = 100
"""Columns of the window below which bars are short."""

TAKING_IN = 1.0
"""Seconds between looks for sampling runs that have finished."""


class Sheet(VerticalScroll, can_focus=True):
    BINDINGS = [*SCROLL_KEYS]


class SetList(PickList):
    BINDINGS = [bind("rank.judge", "enter", "select", "Judge", "Judge the prompts of the set, from where you left.")]


class RankScreen(PlaceScreen):
    """Choose what to judge."""

    PLACE = "rank"
    CSS_PATH = "rank.tcss"
    AUTO_FOCUS = "#sets"
    BINDINGS = [
        bind("rank.new", "n", "new", "New set", "Make a label set from a dataset."),
        bind("rank.sample", "s", "sample", "Sample", "Have checkpoints write completions to judge."),
        bind("rank.freeze", "d", "freeze", "Dataset", "Make a dataset of labels, for a stage to train on."),
        bind("rank.settle", "c", "settle", "Conflicts", "List the disagreements of the set, to settle them."),
        bind("rank.refresh", "r", "look", "Refresh", "Work the figures out again.", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._sets: dict[str, LabelSet] = {}
        self._shown = Content()
        self._figures: tuple[Progress, Figures] | None = None
        """What is shown of the set under the cursor."""
        self._wanted: str | None = None
        self._taken: set[str] = set()
        """Runs that need no further look for completions."""
        self._taking_in = False

    def compose_body(self) -> ComposeResult:
        with Horizontal():
            sets = SetList(id="sets", empty="none yet: n makes one")
            sets.border_title = "Label sets, by you"
            sets.add_class("pane")
            yield sets
            with Sheet(classes="pane", id="sheet") as sheet:
                sheet.border_title = "How good the labels are"
                yield Static(id="figures")

    def on_mount(self) -> None:
        self.poll(TAKING_IN, self._look_for_samples)

    def on_screen_resume(self) -> None:
        super().on_screen_resume()
        self.action_look()

    def action_look(self) -> None:
        self._look()

    @work(thread=True, exclusive=True, group="look")
    def _look(self) -> None:
        path = self.workbench.workspace.labels
        if not path.is_file():
            self.app.call_from_thread(self._show_sets, [], {})
            return
        try:
            annotator = annotator_name(self.workbench.settings.labels.annotator)
            with open_labels(path) as labels:
                sets = labels.sets()
                done = {one.name: labels.count(one.id, annotator) for one in sets}
        except UserError as error:
            self.app.call_from_thread(self.workbench.show_error, error)
            return
        self.app.call_from_thread(self._show_sets, sets, done)
        import_module("workbench.screens.judge")  # so that enter opens it at once

    def _show_sets(self, sets: list[LabelSet], done: dict[str, int]) -> None:
        if not self.query("#sets"):
            return  # the thread that looked was slower than the one who closed the app
        self._sets = {one.name: one for one in sets}
        entries = [
            (one.name, Content.assemble(line(one.name), (f"  {done[one.name]:,}/{one.prompts:,}", "$text-muted")))
            for one in sets
        ]
        names = self.query_one("#sets", PickList)
        names.show(entries)
        if self._wanted is not None and names.choose(self._wanted):
            self._wanted = None
        self._work_out()

    @on(OptionList.OptionHighlighted)
    def _work_out(self) -> None:
        chosen = self.query_one("#sets", PickList).chosen
        if chosen is None or chosen not in self._sets:
            self._show(Content(NO_MATCH if self._sets else EMPTY))
        else:
            self._read_figures(chosen)

    def on_screen_suspend(self) -> None:
        super().on_screen_suspend()
        self.workers.cancel_group(self, "figures")  # whoever judges now is not to wait for it

    @work(thread=True, exclusive=True, group="figures")
    def _read_figures(self, name: str) -> None:
        worker = get_current_worker()

        def wanted(every: Iterator[Judgement]) -> Iterator[Judgement]:
            return takewhile(lambda _: not worker.is_cancelled, every)

        try:
            with open_labels(self.workbench.workspace.labels) as labels:
                (far,) = progress(labels, name)
                found = figures(wanted(judged(labels, Choice(sets=(name,), repeats=True, overruled=True))))
        except UserError as error:
            self.app.call_from_thread(self.workbench.show_error, error)
            return
        if not worker.is_cancelled:
            self.app.call_from_thread(self._show_figures, name, far, found)

    def _show_figures(self, name: str, far: Progress, found: Figures) -> None:
        if self.query("#sets") and self.query_one("#sets", PickList).chosen == name:
            self._figures = far, found
            bar = SHORT if self.app.size.width < NARROW else BAR
            self._show(Content("\n").join(sheet_of(self._sets[name], far, found, bar)))

    def on_resize(self) -> None:
        chosen = self.query_one("#sets", PickList).chosen
        if chosen in self._sets and self._figures is not None and self._figures[0].set_name == chosen:
            self._show_figures(chosen, *self._figures)

    def _show(self, shown: Content) -> None:
        if not looks_same(shown, self._shown):
            self._shown = shown
            self.query_one("#figures", Static).update(shown)

    @on(OptionList.OptionSelected)
    def _selected(self) -> None:
        from workbench.screens.judge import JudgeScreen

        chosen = self.query_one("#sets", PickList).chosen
        if chosen in self._sets:
            self.app.push_screen(JudgeScreen(chosen))

    def action_sample(self) -> None:
        """Open the form; the label set appears when the run is done."""
        self.workbench.start_run("sample")

    def _look_for_samples(self) -> None:
        if not self._taking_in:
            self._taking_in = True
            self._take_in()

    @work(thread=True, group="take in")
    def _take_in(self) -> None:
        """Make label sets of sampling runs that have finished."""
        try:
            found = take_in_finished(self.workbench.workspace, self.workbench.settings.labels, self._taken)
        except UserError as error:
            found = [error]
        told = [left_out_of(self.workbench.workspace, one) if isinstance(one, LabelSet) else "" for one in found]
        self.app.call_from_thread(self._show_taken, found, told)

    def _show_taken(self, found: list[LabelSet | UserError], without: list[str]) -> None:
        self._taking_in = False
        for one, told in zip(found, without, strict=True):
            if isinstance(one, UserError):
                self.workbench.show_error(one)
            else:
                more = f"; {told}" if told else ""
                self.notify(f"{one.prompts:,} prompts to judge{more}.", title=f"The label set {one.name} is there.")
                self._wanted = one.name
        if found:
            self.action_look()

    def action_freeze(self) -> None:
        """Open the form that makes a dataset of the labels of the set under the cursor, or of all."""
        from workbench.screens.freeze import FreezeScreen

        if self._sets:
            self.app.push_screen(FreezeScreen(self.query_one("#sets", PickList).chosen))

    def action_settle(self) -> None:
        from workbench.screens.settling import SettleScreen

        chosen = self.query_one("#sets", PickList).chosen
        if chosen in self._sets:
            self.app.push_screen(SettleScreen(chosen))

    def action_new(self) -> None:
        from workbench.screens.new_set import NewSetScreen

        self.app.push_screen(NewSetScreen(self._made))

    def _made(self, name: str) -> None:
        self._wanted = name
