"""The form that takes in a model that others made."""

from __future__ import annotations

from typing import Any

from textual import on

from stages.store.errors import UserError
from stages.store.hub import model_source
from stages.store.models import list_models
from stages.store.rundir import RunDir
from stages.store.strict import Field
from workbench.screens.launch import LaunchScreen
from workbench.widgets.form import SpecForm, text_field


class ImportScreen(LaunchScreen):
    """A model folder or an id of the local Hugging Face cache, and the name that the model is to have here."""

    PLACE = "runs"
    STAGE = "importing"
    HEADING = "Import a model that others made"

    def extra_fields(self) -> list[Field]:
        return [text_field("name", "Name of the model here; it follows the source.")]

    @on(SpecForm.Changed)
    def _changed(self, event: SpecForm.Changed) -> None:
        if event.name == "source":
            self.name_after(event.form.rows["source"].text, self._taken())

    def _taken(self) -> list[str]:
        return [model.name for model in list_models(self.workbench.workspace)]

    def check(self, settings: dict[str, Any], extra: dict[str, Any]) -> tuple[str, UserError] | None:
        """The source must be there; its path is made absolute, for the worker is elsewhere."""
        try:
            settings["source"] = str(model_source(settings["source"].strip()))
        except UserError as error:
            return "source", error
        if mistake := super().check(settings, extra):
            return mistake
        if extra["name"] in self._taken() and not settings["replace"]:
            hint = "Choose another name, or set replace."
            return "name", UserError(f"There is already a model {extra['name']!r}.", hint)
        return None

    def launched(self, run: RunDir) -> None:
        self.workbench.open_run(run)
