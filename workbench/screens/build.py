"""The form that builds a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stages.store.datasets import list_datasets
from stages.store.errors import UserError
from stages.store.names import nearest
from stages.store.rundir import RunDir
from stages.store.strict import Field
from workbench.screens.launch import LaunchScreen
from workbench.widgets.form import text_field

STARTER = "starter:"
STARTERS = ("starter:sentences", "starter:world")


class BuildScreen(LaunchScreen):
    STAGE = "build"
    HEADING = "Build a dataset"

    def extra_fields(self) -> list[Field]:
        return [text_field("name", "Name of the dataset.", default="")]

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
            settings["sources"] = [_absolute(source) for source in settings["sources"]]
        except UserError as error:
            return "sources", error
        return None

    def launched(self, run: RunDir) -> None:
        self.workbench.show_data("dataset", run.spec().name)


def _absolute(source: str) -> str:
    if source.startswith(STARTER):
        if source not in STARTERS:
            raise UserError(f"There is no {source!r}.", nearest(source, STARTERS))
        return source
    path = Path(source).expanduser().absolute()
    if not path.exists():
        raise UserError(f"There is no file or folder {str(path)!r}.")
    return str(path)
