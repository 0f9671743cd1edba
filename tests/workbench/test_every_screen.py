"""No screen is forgotten: each has a snapshot at two sizes, and each that shows foreign text has shown hostile text."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from textual.pilot import Pilot

from stages.store.workspace import Workspace
from tests.workbench.conftest import SIZES, SNAPSHOTS, settled, wait_for
from tests.workbench.screens import OPENERS, every_screen, opened
from workbench.app import WorkbenchApp

MakeApp = Callable[..., WorkbenchApp]
Snapshot = Callable[[Pilot[Any], str], Awaitable[None]]

ELSEWHERE = {
    "BuildScreen": "build",
    "ChatScreen": "chat",
    "CheckScreen": "check",
    "CheckpointScreen": "chat-checkpoints",
    "ClassifiedScreen": "classified",
    "ClassifyScreen": "classify",
    "CockpitScreen": "cockpit",
    "DataScreen": "data",
    "DuelScreen": "duel",
    "EloScreen": "elo",
    "EvaluateScreen": "evaluate",
    "EvaluationScreen": "evaluation",
    "FewShotScreen": "in-context",
    "FillScreen": "fill",
    "FreezeScreen": "freeze",
    "HelpScreen": "help",
    "HomeScreen": "home",
    "InsideScreen": "inside",
    "JudgeScreen": "judge",
    "JumpScreen": "jump",
    "MaskScreen": "mask",
    "ModelsScreen": "models",
    "RankAnswersScreen": "rank-answers",
    "RankScreen": "rank-sheet",
    "RecordForm": "record-form",
    "RecordScreen": "record",
    "RecordsScreen": "records",
    "RewardScreen": "reward",
    "RunScreen": "run",
    "RunsScreen": "runs",
    "SampleScreen": "sample",
    "SamplingScreen": "chat-sampling",
    "ScaleScreen": "scale-form",
    "SourceScreen": "chat-source",
    "StartScreen": "start",
    "StatisticsScreen": "record-statistics",
    "SweepsScreen": "sweeps",
    "TokenizerScreen": "tokenizer",
    "TokensScreen": "tokens",
    "TuneScreen": "tune",
}
"""Screens whose own tests draw them, with the name of the snapshot."""
HERE = sorted(OPENERS.keys() - ELSEWHERE.keys())


def test_every_screen_has_a_snapshot_at_two_sizes() -> None:
    names = {**ELSEWHERE, **{name: f"screen-{name}" for name in HERE}}
    assert every_screen() == names.keys(), "a screen without a snapshot, or a snapshot without its screen"
    files = {f"{name}-{width}x{height}.txt" for name in names.values() for width, height in SIZES}
    assert files <= {path.name for path in SNAPSHOTS.iterdir()}


@pytest.mark.parametrize("name", HERE)
async def test_a_screen_looks_like_this(
    name: str, make_app: MakeApp, workspace: Workspace, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app()
    async with app.run_test(size=SIZES[0]) as pilot:
        await opened(pilot, name, "plain-words", monkeypatch)
        for width, height in SIZES:
            await pilot.resize_terminal(width, height)
            await wait_for(pilot, lambda size=(width, height): app.screen.size == size)
            await settled(pilot)
            await snapshot(pilot, f"screen-{name}-{width}x{height}")
