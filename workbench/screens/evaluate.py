"""The form that measures checkpoints on a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.content import Content
from textual.css.query import NoMatches
from textual.widgets import Static

from stages.store.datasets import find_dataset
from stages.store.errors import UserError
from stages.store.rundir import RunDir
from stages.store.strict import Field
from workbench.display import content, line
from workbench.evaluating import MEASURED, listed, measurable, name_for, names_of_runs
from workbench.models.tuning import tunable
from workbench.runs import unique_name
from workbench.screens.launch import LaunchScreen
from workbench.widgets.form import SpecForm, choice_field, text_field

CHECKPOINTS = "Runs, run@step, imported models or folders, separated by commas: measured side by side."
EACH = ("last", "all")
"""Which checkpoints of a run that is named alone."""


class EvaluateScreen(LaunchScreen):
    """Which checkpoints, which dataset, and every setting; above them, what will be measured."""

    PLACE = "runs"
    STAGE = "evaluate"
    HEADING = "Measure checkpoints on a dataset"
    CSS_PATH = ["launch.tcss", "../widgets/form.tcss", "evaluate.tcss"]
    KINDS: ClassVar[Mapping[str, str]] = MEASURED
    """By kind of dataset that can be measured on: what is measured."""
    STEM: ClassVar[str] = ""
    """Begins the name that is suggested for a run."""

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        super().__init__(values)
        self._suggested = ""

    def compose_body(self) -> ComposeResult:
        yield from super().compose_body()
        yield Static(id="measured")

    def extra_fields(self) -> list[Field]:
        workspace = self.workbench.workspace
        datasets, models = measurable(workspace, self.KINDS), tunable(workspace)
        dataset = str(self.given.get("dataset") or (datasets[0] if datasets else ""))
        checkpoints = str(self.given.get("checkpoints") or (models[0] if models else ""))
        self.given |= {"dataset": dataset, "checkpoints": checkpoints}
        if not self.given.get("name"):
            self._suggested = self._suggestion(checkpoints, dataset)
            self.given["name"] = self._suggested
        return [
            text_field("name", "Name of the run."),
            text_field("checkpoints", CHECKPOINTS)._replace(kind="list"),  # which has room for many
            choice_field("of_each_run", EACH, "Of a run that is named without a step: its last checkpoint, or all."),
            choice_field("dataset", [*datasets, *([dataset] if dataset not in datasets else [])], "Measured on it."),
        ]

    def on_mount(self) -> None:
        self._tell()

    def check(self, settings: dict[str, Any], extra: dict[str, Any]) -> tuple[str, UserError] | None:
        mistake = super().check(settings, extra)
        if mistake is not None:
            return mistake
        if not extra["dataset"]:
            return "dataset", UserError("There is no dataset to measure on yet.", "Build one first.")
        try:
            every = extra.pop("of_each_run") == "all"
            extra["checkpoints"] = listed(self.workbench.workspace, extra["checkpoints"], every=every)
        except UserError as error:
            return "checkpoints", error
        return None

    def launched(self, run: RunDir) -> None:
        self.workbench.open_run(run)

    @on(SpecForm.Changed)
    def _changed(self, event: SpecForm.Changed) -> None:
        self._tell()
        form = event.form
        if event.name in ("checkpoints", "dataset") and form.rows["name"].text == self._suggested:
            extra = form.split(form.peek())[1]
            self._suggested = self._suggestion(extra["checkpoints"], extra["dataset"])
            form.rows["name"].text = self._suggested

    def _suggestion(self, checkpoints: str, dataset: str) -> str:
        if not checkpoints or not dataset:
            return "evaluation"
        first = checkpoints.partition(",")[0].strip()
        return unique_name(names_of_runs(self.workbench.workspace), f"{self.STEM}{name_for(first, dataset)}")

    def told(self, settings: Mapping[str, Any], kind: str) -> str:
        """What will be measured on a dataset of this kind."""
        return self.KINDS.get(kind, f"nothing: {kind} is no measure here")

    def _tell(self) -> None:
        """Say how many checkpoints the form names just now, and what will be measured of them."""
        try:
            form, told = self.query_one(SpecForm), self.query_one("#measured", Static)
        except NoMatches:
            return  # a field told of its first value while the screen was still being made
        settings, extra = form.split(form.peek())
        workspace = self.workbench.workspace
        try:
            names = listed(workspace, extra["checkpoints"], every=extra["of_each_run"] == "all")
            info = find_dataset(workspace, extra["dataset"]).info
        except UserError as error:
            told.update(content(str(error), "$text-muted"))
            return
        several = "checkpoint" if len(names) == 1 else "checkpoints"
        count = settings.get("max_records")
        some = f"up to {count:,} records" if isinstance(count, int) else "all records"
        what = self.told(settings, info.kind)
        told.update(
            Content.assemble(
                f"{len(names)} {several}, {some} of ", line(extra["dataset"], "bold"), f" ({info.kind}): {what}"
            )
        )
