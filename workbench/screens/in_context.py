"""In-context evaluation in the app: the form that starts one, and its table with accuracy against examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textual.content import Content

from stages.store.errors import UserError
from stages.store.evaluations import Evaluation
from stages.store.tasks import absolute_task
from workbench.display import line
from workbench.evaluating import TASKS
from workbench.plots.evaluation_picture import few_shot_picture, has_shots
from workbench.plots.picture import Picture
from workbench.screens.evaluate import EvaluateScreen
from workbench.screens.evaluation import EvaluationScreen


class InContextScreen(EvaluateScreen):
    """Which checkpoints, which dataset, which template, how many examples."""

    STAGE = "in_context"
    HEADING = "Measure checkpoints by examples in the prompt"
    KINDS = TASKS
    STEM = "few-shot-"

    def check(self, settings: dict[str, Any], extra: dict[str, Any]) -> tuple[str, UserError] | None:
        mistake = super().check(settings, extra)
        if mistake is not None:
            return mistake
        try:
            settings["task"] = absolute_task(str(settings.get("task", "auto")))
        except UserError as error:
            return "task", error
        return None

    def told(self, settings: Mapping[str, Any], kind: str) -> str:
        shots = settings.get("shots")
        several = ", ".join(map(str, shots)) if isinstance(shots, list) else "some"
        return f"with {several} examples, {super().told(settings, kind)}"


class FewShotScreen(EvaluationScreen):
    """The plot is the share that is right against the number of examples, a line a checkpoint."""

    STAGE = "in_context"

    def plots(self, found: Evaluation) -> bool:
        return has_shots(found)

    def picture(self, found: Evaluation, measure: str) -> Picture:
        return few_shot_picture(found, measure, log=self.look.log)

    def heading(self, found: Evaluation) -> Content:
        return line(f"{found.dataset}, {found.split}: {found.records:,} questions, right by number of examples")
