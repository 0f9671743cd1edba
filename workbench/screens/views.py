"""Which screen shows a run: each stage has the one that fits what it makes."""

from __future__ import annotations

from stages.store.errors import UserError
from stages.store.rundir import RunDir
from workbench.screens.run import RunScreen


def view_of(run: RunDir) -> type[RunScreen]:
    """The screen for a run; the plain one when its spec cannot be read."""
    try:
        stage = run.spec().stage
    except UserError:
        return RunScreen
    if stage == "evaluate":
        from workbench.screens.evaluation import EvaluationScreen

        return EvaluationScreen
    if stage == "in_context":
        from workbench.screens.in_context import FewShotScreen

        return FewShotScreen
    if stage in ("reward", "report"):
        from workbench.screens.reward import RewardScreen

        return RewardScreen
    if stage in ("classify", "assess"):
        from workbench.screens.classified import ClassifiedScreen

        return ClassifiedScreen
    if stage in ("ppo", "grpo"):
        from workbench.screens.cockpit import CockpitScreen

        return CockpitScreen
    return RunScreen
