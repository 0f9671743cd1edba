"""The screens that the app opens by name: its places, and the form of each stage. Each is imported when opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from stages.store.specs import FROM_CHECKPOINT
from workbench.life.steps import FREEZE

if TYPE_CHECKING:
    from textual.screen import Screen


def _home() -> Screen[Any]:
    from workbench.screens.home import HomeScreen

    return HomeScreen()


def _data() -> Screen[Any]:
    from workbench.screens.data import DataScreen

    return DataScreen()


def _runs() -> Screen[Any]:
    from workbench.screens.runs import RunsScreen

    return RunsScreen()


def _rank() -> Screen[Any]:
    from workbench.screens.rank import RankScreen

    return RankScreen()


PLACES: Mapping[str, Callable[[], Screen[Any]]] = {"home": _home, "data": _data, "runs": _runs, "rank": _rank}
"""What makes the screen of a place. Chat, the fifth, is told by the app with whom."""


def chat(checkpoint: str | None) -> Screen[Any]:
    """The chat, with a checkpoint as people write it, or with none yet."""
    from workbench.screens.chat import ChatScreen

    return ChatScreen(checkpoint)


def form(stage: str, values: dict[str, Any]) -> Screen[Any]:
    """The form that starts a run of a stage, or makes a dataset of labels; `values` fill its fields."""
    if stage == FREEZE:
        from workbench.screens.freeze import FreezeScreen

        return FreezeScreen(values.get("label_set"))
    if stage == "build":
        from workbench.screens.build import BuildScreen

        return BuildScreen(values)
    if stage == "importing":
        from workbench.screens.importing import ImportScreen

        return ImportScreen(values)
    if stage == "tokenizer":
        from workbench.screens.tokenizer import TokenizerScreen

        return TokenizerScreen(values)
    if stage in FROM_CHECKPOINT:
        from workbench.screens.tune import TuneScreen

        return TuneScreen(stage, values)
    if stage == "evaluate":
        from workbench.screens.evaluate import EvaluateScreen

        return EvaluateScreen(values)
    if stage == "in_context":
        from workbench.screens.in_context import InContextScreen

        return InContextScreen(values)
    if stage == "sample":
        from workbench.screens.sample import SampleScreen

        return SampleScreen(values)
    from workbench.screens.start import StartScreen

    return StartScreen(stage, values)
