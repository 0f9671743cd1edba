"""The form that has checkpoints write completions to judge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.css.query import NoMatches
from textual.widgets import Static

from stages.store.datasets import find_dataset, list_datasets
from stages.store.errors import UserError
from stages.store.rundir import RunDir
from stages.store.specs.sample import Sample
from stages.store.strict import Field
from stages.store.workspace import Workspace
from workbench.display import content
from workbench.evaluating import listed, name_for, names_of_runs
from workbench.judging.taking_in import refuse_other_mode
from workbench.life.steps import DOZEN
from workbench.models.tuning import tunable
from workbench.runs import unique_name
from workbench.screens.launch import LaunchScreen
from workbench.widgets.form import SpecForm, choice_field, text_field
from workbench.widgets.text_field import TextField

KINDS = ("prompts", "chat", "preference")
TYPED = "typed below"
CHECKPOINTS = "Runs, run@step, imported models or folders, separated by commas: they take turns."


class SampleScreen(LaunchScreen):
    """Which checkpoints, which prompts, how many completions of each; below, what that comes to."""

    PLACE = "rank"
    STAGE = "sample"
    HEADING = "Have checkpoints write completions to judge"
    HIDDEN = ("prompts",)
    CSS_PATH = ["launch.tcss", "../widgets/form.tcss", "sample.tcss"]

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        super().__init__(values)
        self._suggested = ""

    def compose_body(self) -> ComposeResult:
        yield from super().compose_body()
        given = self.given.get("prompts") or ()
        text = given if isinstance(given, str) else "\n".join(given)
        typed = TextField(text, "Prompts, one a line: what a user says.")
        typed.border_title = "typed prompts"
        yield typed
        yield Static(id="told")

    def extra_fields(self) -> list[Field]:
        workspace = self.workbench.workspace
        datasets, models = promptable(workspace), tunable(workspace)
        dataset = str(self.given.get("dataset") or (datasets[0] if datasets else TYPED))
        checkpoints = str(self.given.get("checkpoints") or (models[0] if models else ""))
        self.given |= {"dataset": dataset, "checkpoints": checkpoints}
        if self.workbench.settings.stage(self.STAGE).get("max_prompts") is None:
            self.given.setdefault("max_prompts", DOZEN)  # what a person judges in one go
        if not self.given.get("name"):
            self._suggested = self._suggestion(checkpoints, dataset)
            self.given["name"] = self._suggested
        others = [dataset] if dataset not in (*datasets, TYPED) else []
        return [
            text_field("name", "Name of the run and of the label set."),
            text_field("checkpoints", CHECKPOINTS)._replace(kind="list"),  # which has room for many
            choice_field("dataset", [*datasets, *others, TYPED], "Where the prompts come from."),
        ]

    def on_mount(self) -> None:
        self._tell()

    def check(self, settings: dict[str, Any], extra: dict[str, Any]) -> tuple[str, UserError] | None:
        mistake = super().check(settings, extra)
        if mistake is not None:
            return mistake
        typed = extra["dataset"] == TYPED
        settings["prompts"] = self._lines() if typed else []
        extra["dataset"] = None if typed else extra["dataset"]
        if typed and not settings["prompts"]:
            return "dataset", UserError("No prompt is typed.", "Type one a line below, or choose a dataset.")
        try:
            extra["checkpoints"] = listed(self.workbench.workspace, extra["checkpoints"])
        except UserError as error:
            return "checkpoints", error
        try:
            refuse_other_mode(self.workbench.workspace, extra["name"], Sample(**settings))
        except UserError as error:
            return "name", error
        return None

    def launched(self, run: RunDir) -> None:
        name = run.spec().name
        if self.workbench.current_mode != "rank":
            self.workbench.open_run(run)
            return
        self.workbench.notify("Its label set appears in Rank when it is done.", title=f"{name} is at work.")

    @on(SpecForm.Changed)
    def _changed(self, event: SpecForm.Changed) -> None:
        self._tell()
        form = event.form
        if event.name in ("checkpoints", "dataset") and form.rows["name"].text == self._suggested:
            extra = form.split(form.peek())[1]
            self._suggested = self._suggestion(extra["checkpoints"], extra["dataset"])
            form.rows["name"].text = self._suggested

    @on(TextField.Changed)
    def _typed(self) -> None:
        self._tell()

    def _lines(self) -> list[str]:
        return [text for text in self.query_one(TextField).text.split("\n") if text.strip()]

    def _suggestion(self, checkpoints: str, dataset: str) -> str:
        stem = name_for(checkpoints.partition(",")[0].strip(), "typed" if dataset == TYPED else dataset)
        return unique_name(names_of_runs(self.workbench.workspace), stem)

    def _tell(self) -> None:
        """Say what the form comes to just now: prompts, completions, how they will be judged."""
        try:
            form, told, typed = self.query_one(SpecForm), self.query_one("#told", Static), self.query_one(TextField)
        except NoMatches:
            return  # a field told of its first value while the screen was still being made
        settings, extra = form.split(form.peek())
        typed.display = extra["dataset"] == TYPED
        try:
            checkpoints = listed(self.workbench.workspace, extra["checkpoints"])
            known = None if typed.display else find_dataset(self.workbench.workspace, extra["dataset"]).info.records
        except UserError as error:
            told.update(content(str(error), "$text-muted"))
            return
        prompts = len(dict.fromkeys(self._lines())) if known is None else sum(known.values())
        k, most = settings.get("k"), settings.get("max_prompts")
        total = prompts
        prompts = min(prompts, most) if isinstance(most, int) else prompts
        of_all = f" of {total:,}" if prompts < total else ""
        several = f"{len(checkpoints)} checkpoints in turn" if len(checkpoints) > 1 else checkpoints[0]
        part = "" if settings.get("part") in (None, "any") else f", of which those of the {settings['part']} part count"
        if isinstance(k, int):
            asked = f"{prompts:,}{of_all} prompt{'' if total == 1 else 's'}{part}"
            told.update(content(f"{asked} · {prompts * k:,} completions by {several}", "$text-muted"))


def promptable(workspace: Workspace) -> list[str]:
    """Names of the datasets that prompts can be taken from: sets of prompts first, the newest first."""
    found = [one for one in list_datasets(workspace) if one.info.kind in KINDS]
    return [one.name for one in sorted(found, key=lambda one: (KINDS.index(one.info.kind), -one.info.created))]
