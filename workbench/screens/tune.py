"""The form of a stage that goes on from a checkpoint, with what it will cost, and the way to the mask viewer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textual.content import Content

from stages.store.datasets import list_datasets
from stages.store.errors import UserError
from stages.store.specs.parents import BASES, KINDS, LANGUAGE_MODELS, ExtraParent, extra_parents
from stages.store.strict import Field
from workbench.keys import bind
from workbench.models.known_tokens import TokenCount
from workbench.models.times import tuning_time
from workbench.models.tuning import TuningEstimate, begins_from, datasets_for, estimate_tuning, tunable
from workbench.plots.picture import figure
from workbench.runs import run_names, unique_name
from workbench.screens.start import StartScreen, labelled, size_of
from workbench.widgets.form import SpecForm, choice_field, text_field

NONE = "(none)"
"""Shown for a further parent that is left out; no name begins with a bracket."""

LEARNT = {
    "chat": "Conversations",
    "text": "Text",
    "preference": "Preferences",
    "prompts": "Prompts",
    "labelled": "Labelled texts",
}
"""What a dataset is called in the form, by kind of record."""

FEW_STEPS = 10
"""Optimiser steps below which a model hardly moves from where it began."""
SO_FEW = "So few steps teach next to nothing: more epochs, a smaller batch_size, or more records."


class TuneScreen(StartScreen):
    """Every setting of `stage`, its dataset, the checkpoint to go on from, and the parents it has beside that."""

    BINDINGS = [
        bind("tune.mask", "f3", "mask", "Mask", "Show which tokens of the conversations are trained."),
    ]

    def __init__(self, stage: str, values: Mapping[str, Any] | None = None) -> None:
        super().__init__(stage, values)
        self._kinds = KINDS.get(stage, ())
        self._beside = extra_parents(stage)
        self._bases = BASES.get(stage, LANGUAGE_MODELS)

    def extra_fields(self) -> list[Field]:
        workspace = self.workbench.workspace
        datasets, checkpoints = datasets_for(workspace, self.STAGE), tunable(workspace, self._bases)
        dataset = str(self.given.get("dataset") or (datasets[0] if datasets else ""))
        checkpoint = str(self.given.get("checkpoint") or begins_from(workspace, self.STAGE, checkpoints))
        self.given |= {"dataset": dataset, "checkpoint": checkpoint}
        stem = f"{checkpoint[:40]}-{self.STAGE}" if checkpoint else self.STAGE
        self.given["name"] = unique_name(run_names(workspace), str(self.given.get("name") or stem))
        learnt = " or ".join(LEARNT[kind] for kind in self._kinds)
        return [
            text_field("name", "Name of the run."),
            choice_field("dataset", _with(datasets, dataset), f"{learnt}."),
            choice_field(
                "checkpoint",
                _with(checkpoints, checkpoint),
                "Model that it goes on from: the last checkpoint of a run, or an imported model.",
            ),
            *(self._beside_field(one) for one in self._beside),
        ]

    def _beside_field(self, one: ExtraParent) -> Field:
        """The choice of a parent beside the checkpoint, which itself is offered last: another teaches better."""
        workspace = self.workbench.workspace
        if one.of == "dataset":
            names = [found.name for found in list_datasets(workspace) if found.info.kind == "text"]
        else:
            names = sorted(tunable(workspace, one.made_by), key=self.given["checkpoint"].__eq__)
        choices = names if one.required else [NONE, *names]
        if one.role == "reward" and self.STAGE == "ppo" and names:
            self.given.setdefault(one.field, names[0])  # what PPO is about; GRPO has its rewards from rules
        given = str(self.given.get(one.field) or "")
        return choice_field(one.field, _with(choices, given), one.about)

    def check(self, settings: dict[str, Any], extra: dict[str, Any]) -> tuple[str, UserError] | None:
        mistake = super().check(settings, extra)
        if mistake is None:
            named = {one.role: extra.pop(one.field) for one in self._beside}
            extra["extra"] = {role: name for role, name in named.items() if name != NONE}
        return mistake

    def check_parents(self, settings: dict[str, Any], extra: dict[str, Any]) -> tuple[str, UserError] | None:
        if (missing := self._missing(extra)) is not None:
            return missing
        try:
            self._estimate(settings, extra)
        except UserError as error:
            return ("context" if "context" in error.title else "dataset"), error
        return None

    def cost_lines(self, settings: dict[str, Any], extra: dict[str, Any], *, wide: bool) -> list[Content]:
        if (missing := self._missing(extra)) is not None:
            raise missing[1]
        found = self._estimate(settings, extra)
        takes = ""
        if self.STAGE == "sft" and self.speeds is not None and found.seen is not None:
            takes = tuning_time(self.speeds, found.seen, found.parameters)
        told = labelled(_facts(found, self._kinds, takes, wide=wide), wide=wide)
        few = found.steps is not None and found.steps < FEW_STEPS
        return [*told, Content.styled(SO_FEW, "$text-warning")] if few else told

    def _estimate(self, settings: Mapping[str, Any], extra: Mapping[str, Any]) -> TuningEstimate:
        workspace = self.workbench.workspace
        return estimate_tuning(workspace, settings, extra["dataset"], extra["checkpoint"], self.STAGE)

    def _missing(self, extra: Mapping[str, Any]) -> tuple[str, UserError] | None:
        """The parent that the form has no choice for."""
        if not extra["dataset"]:
            nothing = " or ".join(LEARNT[kind] for kind in self._kinds).lower()
            return "dataset", UserError(f"No {nothing} yet.", f"Build a dataset of kind {' or '.join(self._kinds)}.")
        if not extra["checkpoint"]:
            return "checkpoint", UserError("No model yet.", "Pre-train or import one.")
        for one in self._beside:
            if one.required and not extra[one.field]:
                return one.field, UserError(f"There is no {one.role} yet.", "Pre-train or import one.")
        return None

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return False if action == "mask" and "chat" not in self._kinds else super().check_action(action, parameters)

    def action_mask(self) -> None:
        """Look at the mask with what the form says now."""
        from workbench.screens.mask import MaskScreen

        form = self.query_one(SpecForm)
        settings, extra = form.split(form.peek())
        if not extra["dataset"] or not extra["checkpoint"]:
            self.notify("The mask needs conversations and a model.")
            return
        self.app.push_screen(MaskScreen(extra["dataset"], extra["checkpoint"], settings))


def _with(names: list[str], given: str) -> list[str]:
    """The choices, with the one that is given already when it is another."""
    return [*names, *([given] if given and given not in names else [])]


def _facts(found: TuningEstimate, kinds: tuple[str, ...], takes: str, *, wide: bool) -> list[tuple[str, str]]:
    facts = [
        ("parameters", f"{found.parameters:,}" if found.parameters else "—"),
        ("memory", f"{size_of(found.standing)} and activations" if found.parameters else "—"),
        ("rows of", f"{found.context:,} tokens"),
        ("chats" if kinds == ("chat",) else "records", f"{found.records:,}, {_tokens(found.tokens)}"),
        ("steps", _steps(found)),
        *([("takes", takes)] if takes else []),
    ]
    return facts if wide else [fact for fact in facts if fact[0] != "rows of"]


def _tokens(count: TokenCount) -> str:
    if count.counted:
        return f"{figure(count.likely)} tokens"
    if count.least < count.most:
        return f"{figure(count.least)} to {figure(count.most)} tokens"
    return f"about {figure(count.likely)} tokens"


def _steps(found: TuningEstimate) -> str:
    """Optimiser steps, with how sure they are: a range where nothing is known of the tokenizer."""
    if found.steps is None or found.between is None:
        return "—"
    least, most = found.between
    return f"{least:,} to {most:,}" if least < most else f"about {found.steps:,}"
