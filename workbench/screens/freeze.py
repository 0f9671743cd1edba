"""The form that makes a dataset of labels, with what it comes to beside it.

name         world-labels        ╭ what it makes ───────────────
label_set    ‹ world-rank › 2/3  │ 41 rankings of 40 prompts
makes        ● rankings  ○ best  │ ada 30, ben 11
annotators                       │ 2 prompts left out: in conflict
"""

from __future__ import annotations

from typing import Any

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.css.query import NoMatches
from textual.widgets import Static
from textual.worker import get_current_worker

from stages.store.datasets import list_datasets
from stages.store.errors import UserError
from stages.store.labels import open_labels
from stages.store.rundir import RunDir
from stages.store.strict import Field
from workbench.display import content
from workbench.judging.freezing import NOTHING, Freeze, Frozen, build_settings, freeze, spooled
from workbench.keys import bind
from workbench.runs import unique_name
from workbench.screens.launch import LaunchScreen, heading
from workbench.widgets.form import SpecForm, choice_field, text_field

EVERY = "every set"


class FreezeScreen(LaunchScreen):
    """`chosen` is the label set that the form begins with."""

    PLACE = "rank"
    STAGE = "build"
    CSS_PATH = ["launch.tcss", "../widgets/form.tcss", "freeze.tcss"]

    BINDINGS = [
        bind("start.launch", "enter,ctrl+r", "launch", "Make", "Make the dataset."),
        bind("start.back", "escape", "back", "Back", "Leave the form; nothing is made."),
    ]

    def __init__(self, chosen: str | None) -> None:
        super().__init__()
        self._chosen = chosen or EVERY
        self._suggested = ""
        """The name that the form gave, which follows the label set until the person types another."""

    def compose_body(self) -> ComposeResult:
        yield heading("Make a dataset of labels", "makes it")
        with Horizontal(id="freeze-body"):
            first = {"name": self._suggestion(self._chosen), "label_set": self._chosen}
            yield SpecForm(Freeze, first, extra=self.extra_fields(), crowded=True)
            with Vertical(id="freeze-told", classes="pane") as pane:
                pane.border_title = "what it makes"
                yield Static(Content.styled("Counting …", "$text-muted"), id="told")
        yield Static(id="trouble", classes="error")

    def extra_fields(self) -> list[Field]:
        try:
            with open_labels(self.workbench.workspace.labels) as labels:
                sets = [one.name for one in labels.sets()]
        except UserError as error:
            self.workbench.show_error(error)
            sets = []
        return [
            text_field("name", "Name of the dataset."),
            choice_field("label_set", [*sets, EVERY], "Whose labels it is made of."),
        ]

    def on_mount(self) -> None:
        self._look()

    @on(SpecForm.Changed)
    def _changed(self, event: SpecForm.Changed) -> None:
        rows = event.form.rows
        if event.name == "label_set" and rows["name"].text == self._suggested:
            rows["name"].text = self._suggestion(rows["label_set"].text)
        if event.name != "name":
            self._look()

    def check(self, settings: dict[str, Any], extra: dict[str, Any]) -> tuple[str, UserError] | None:
        mistake = super().check(settings, extra)
        if mistake is not None:
            return mistake
        if extra["name"] in self._taken():
            return "name", UserError(f"There is already a dataset {extra['name']!r}.", "Choose another name.")
        for field in ("since", "until"):
            try:
                Freeze(**{field: settings[field]}).choice(())
            except UserError as error:
                return field, error
        return None

    def launch(self, settings: dict[str, Any], extra: dict[str, Any]) -> RunDir:
        """Freeze the labels into a file, and have a build read it."""
        chosen, name = Freeze(**settings), extra["name"]
        best = chosen.makes == "best answers"
        frozen = self._frozen(chosen, extra["label_set"])
        path = spooled(self.workbench.workspace, name, frozen.records)
        build = build_settings(self.workbench.settings.stage(self.STAGE), path, frozen.sets, best=best)
        try:
            return super().launch(build, {"name": name})
        except UserError:
            path.unlink(missing_ok=True)
            raise

    def launched(self, run: RunDir) -> None:
        self.show_made("dataset", run)

    def _look(self) -> None:
        """Work out what the form comes to just now."""
        try:
            form = self.query_one(SpecForm)
        except NoMatches:
            return  # a field told of its first value while the screen was still being made
        settings, extra = form.split(form.peek())
        self._count(Freeze(**settings), extra["label_set"])

    @work(thread=True, exclusive=True, group="look")
    def _count(self, chosen: Freeze, label_set: str) -> None:
        worker = get_current_worker()
        try:
            told = told_of(self._frozen(chosen, label_set), chosen)
        except UserError as error:
            told = content(str(error), "$text-error")
        if not worker.is_cancelled:
            self.app.call_from_thread(self._tell, told)

    def _tell(self, told: Content) -> None:
        if self.is_attached:
            self.query_one("#told", Static).update(told)

    def _frozen(self, chosen: Freeze, label_set: str) -> Frozen:
        sets = () if label_set == EVERY else (label_set,)
        with open_labels(self.workbench.workspace.labels) as labels:
            return freeze(labels, chosen.choice(sets), best=chosen.makes == "best answers", agreed=chosen.only_agreed)

    def _suggestion(self, label_set: str) -> str:
        self._suggested = unique_name(self._taken(), "labels" if label_set == EVERY else f"{label_set}-labels")
        return self._suggested

    def _taken(self) -> set[str]:
        return {found.name for found in list_datasets(self.workbench.workspace)}


def told_of(frozen: Frozen, chosen: Freeze) -> Content:
    """What a dataset would hold, in words."""
    count, made = len(frozen.records), "ranking" if chosen.makes == "rankings" else "answer"
    if not count:
        return content(str(NOTHING), "$text-muted")
    lines = [
        Content.assemble((f"{count:,} {made}{_s(count)}", "bold"), f" of {frozen.prompts:,} prompt{_s(frozen.prompts)}")
    ]
    lines += [content(f"{who} {many:,}", "$text-muted") for who, many in sorted(frozen.annotators.items())]
    if frozen.conflicts:
        lines.append(Content(f"{frozen.conflicts:,} prompt{_s(frozen.conflicts)} left out, in conflict"))
    return Content("\n").join(lines)


def _s(count: int) -> str:
    return "" if count == 1 else "s"
