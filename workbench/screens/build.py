"""The form that builds a dataset, with what its sources hold beside it: kind, shape, fields and first records."""

from __future__ import annotations

import asyncio
from typing import Any

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Container, VerticalScroll
from textual.content import Content
from textual.css.query import NoMatches
from textual.widgets import Static

from stages.store.datasets import list_datasets
from stages.store.desk import DeskProgress
from stages.store.errors import UserError
from stages.store.rundir import RunDir
from stages.store.sources import absolute_source
from stages.store.specs.build import Build
from stages.store.strict import Field
from workbench.display import content
from workbench.records.look_report import look_report
from workbench.screens.launch import LaunchScreen, heading
from workbench.widgets.form import SpecForm, text_field
from workbench.wording import amount

TELLING = ("sources", "kind", "mapping", "format")
"""Settings on which it depends what the sources are seen to hold."""
PATIENCE = 0.4
"""Seconds without a key after which the sources are looked at."""


class BuildScreen(LaunchScreen):
    STAGE = "build"
    HEADING = "Build a dataset"
    HIDDEN = ("label_sets",)
    CSS_PATH = ["launch.tcss", "../widgets/form.tcss", "build.tcss"]

    def compose_body(self) -> ComposeResult:
        yield heading(self.HEADING)
        values = {**self.workbench.settings.stage(self.STAGE), **self.given}
        with Container(id="build-body"):
            with Container(id="build-form"):
                yield SpecForm(Build, values, extra=self.extra_fields(), hidden=self.HIDDEN, crowded=True)
            with VerticalScroll(id="build-look", classes="pane"):
                yield Static(id="look")
        yield Static(id="trouble", classes="error")

    def extra_fields(self) -> list[Field]:
        return [text_field("name", "Name of the dataset.", default="")]

    def on_mount(self) -> None:
        self.query_one("#build-look").border_title = "what they hold"
        self._look(0.0)

    @on(SpecForm.Changed)
    def _changed(self, event: SpecForm.Changed) -> None:
        if event.name in TELLING:
            self._look(PATIENCE)
        if event.name == "sources":
            sources = event.form.peek().get("sources") or [""]
            self.name_after(sources[0], (found.name for found in list_datasets(self.workbench.workspace)))

    @work(exclusive=True, group="look")
    async def _look(self, patience: float) -> None:
        """Ask the desk what the sources hold, once the typing has paused."""
        await asyncio.sleep(patience)
        form = self.query_one(SpecForm)
        settings, _ = form.split(form.peek())
        telling = {name: settings[name] for name in TELLING if name in settings}
        if not telling.get("sources"):
            self._show(Content.styled("Name files or folders, and what they hold is shown here.", "$text-muted"))
            return
        self._show(Content.styled("Looking …", "$text-muted"))
        try:
            telling["sources"] = [absolute_source(source) for source in telling["sources"]]
            seen = await self.workbench.desk.ask("source.look", on_progress=self._progress, settings=telling)
        except UserError as error:
            self._show(content(str(error), "$text-error"))
        else:
            self._show(look_report(seen))

    def _progress(self, progress: DeskProgress) -> None:
        if progress.total:
            told = f"Looking … {amount(progress.done, 'bytes')} of {amount(progress.total, 'bytes')}"
            self._show(Content.styled(told, "$text-muted"))

    def _show(self, told: Content) -> None:
        try:
            self.query_one("#look", Static).update(told)
        except NoMatches:
            return  # the form is gone

    def check(self, settings: dict[str, Any], extra: dict[str, Any]) -> tuple[str, UserError] | None:
        """The name must be free and the sources there; their paths are made absolute, for the worker is elsewhere."""
        mistake = super().check(settings, extra)
        if mistake is not None:
            return mistake
        taken = {found.name for found in list_datasets(self.workbench.workspace)}
        if extra["name"] in taken and not settings["replace"]:
            error = UserError(f"There is already a dataset {extra['name']!r}.", "Choose another name, or set replace.")
            return "name", error
        if not settings["sources"]:
            return "sources", UserError("Name at least one file or folder, or starter:world.")
        try:
            settings["sources"] = [absolute_source(source) for source in settings["sources"]]
        except UserError as error:
            return "sources", error
        return None

    def launched(self, run: RunDir) -> None:
        self.show_made("dataset", run)
