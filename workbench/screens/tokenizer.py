"""The form that trains a tokenizer on a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stages.store.datasets import list_datasets
from stages.store.errors import UserError
from stages.store.rundir import RunDir
from stages.store.strict import Field
from stages.store.tokenizers import list_tokenizers
from workbench.screens.launch import LaunchScreen
from workbench.widgets.form import choice_field, text_field


class TokenizerScreen(LaunchScreen):
    STAGE = "tokenizer"
    HEADING = "Train a tokenizer"

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        super().__init__(values)
        self.given.pop("tokenizer", None)

    def extra_fields(self) -> list[Field]:
        from workbench.runs import unique_name

        names = [found.name for found in list_datasets(self.workbench.workspace)]
        dataset = self.given.setdefault("dataset", names[0] if names else "")
        taken = [found.name for found in list_tokenizers(self.workbench.workspace)]
        self.given["name"] = unique_name(taken, self.given.get("name") or f"{dataset}-bpe")
        return [
            text_field("name", "Name of the tokenizer."),
            choice_field("dataset", names, "Text it is trained on."),
        ]

    def check(self, settings: dict[str, Any], extra: dict[str, Any]) -> tuple[str, UserError] | None:
        mistake = super().check(settings, extra)
        if mistake is not None:
            return mistake
        if not extra["dataset"]:
            return "dataset", UserError("There is no dataset yet.", "Build one first.")
        taken = {found.name for found in list_tokenizers(self.workbench.workspace)}
        if extra["name"] in taken and not settings["replace"]:
            hint = "Choose another name, or set replace."
            return "name", UserError(f"There is already a tokenizer {extra['name']!r}.", hint)
        return None

    def launched(self, run: RunDir) -> None:
        self.show_made("tokenizer", run)
