"""The form that starts instruction tuning, with what it will cost, and the way to the mask viewer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textual.content import Content

from stages.store.errors import UserError
from stages.store.strict import Field
from workbench.keys import bind
from workbench.picture import figure
from workbench.runs import run_names, unique_name
from workbench.screens.start import StartScreen, labelled, size_of
from workbench.tuning import TuningEstimate, chats, estimate_tuning, tunable
from workbench.widgets.form import SpecForm, choice_field, text_field


class TuneScreen(StartScreen):
    """Every setting of instruction tuning, the conversations, and the checkpoint to go on from."""

    BINDINGS = [
        bind("tune.mask", "f3", "mask", "Mask", "Show which tokens of the conversations are trained."),
    ]

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        super().__init__("sft", values)

    def extra_fields(self) -> list[Field]:
        workspace = self.workbench.workspace
        datasets, checkpoints = chats(workspace), tunable(workspace)
        dataset = str(self.given.get("dataset") or (datasets[0] if datasets else ""))
        checkpoint = str(self.given.get("checkpoint") or (checkpoints[0] if checkpoints else ""))
        self.given |= {"dataset": dataset, "checkpoint": checkpoint}
        stem = f"{checkpoint[:40]}-sft" if checkpoint else "sft"
        self.given["name"] = unique_name(run_names(workspace), str(self.given.get("name") or stem))
        return [
            text_field("name", "Name of the run."),
            choice_field("dataset", [*datasets, *([dataset] if dataset not in datasets else [])], "Conversations."),
            choice_field(
                "checkpoint",
                [*checkpoints, *([checkpoint] if checkpoint not in checkpoints else [])],
                "Model that it goes on from: the last checkpoint of a run, or an imported model.",
            ),
        ]

    def check_parents(self, settings: dict[str, Any], extra: dict[str, Any]) -> tuple[str, UserError] | None:
        if (missing := _missing(extra)) is not None:
            return missing
        try:
            estimate_tuning(self.workbench.workspace, settings, extra["dataset"], extra["checkpoint"])
        except UserError as error:
            return ("context" if "context" in error.title else "dataset"), error
        return None

    def cost_lines(self, settings: dict[str, Any], extra: dict[str, Any], *, wide: bool) -> list[Content]:
        if (missing := _missing(extra)) is not None:
            raise missing[1]
        found = estimate_tuning(self.workbench.workspace, settings, extra["dataset"], extra["checkpoint"])
        return labelled(_facts(found, wide=wide), wide=wide)

    def action_explain(self) -> None:
        """Tuning has no presets."""

    def action_mask(self) -> None:
        """Look at the mask with what the form says now."""
        from workbench.screens.mask import MaskScreen

        form = self.query_one(SpecForm)
        settings, extra = form.split(form.peek())
        if not extra["dataset"] or not extra["checkpoint"]:
            self.notify("The mask needs conversations and a model.")
            return
        self.app.push_screen(MaskScreen(extra["dataset"], extra["checkpoint"], settings))


def _missing(extra: Mapping[str, Any]) -> tuple[str, UserError] | None:
    """The parent that the form has no choice for."""
    if not extra["dataset"]:
        return "dataset", UserError("No conversations yet.", "Build a dataset of kind chat.")
    if not extra["checkpoint"]:
        return "checkpoint", UserError("No model yet.", "Pre-train or import one.")
    return None


def _facts(found: TuningEstimate, *, wide: bool) -> list[tuple[str, str]]:
    facts = [
        ("parameters", f"{found.parameters:,}" if found.parameters else "—"),
        ("memory", f"{size_of(found.standing)} and activations" if found.parameters else "—"),
        ("rows of", f"{found.context:,} tokens"),
        ("chats", f"{found.conversations:,}, about {figure(found.tokens)} tokens"),
        ("steps", f"about {found.steps:,}"),
    ]
    return facts if wide else [fact for fact in facts if fact[0] != "rows of"]
