"""Damaged directories of runs: the others are listed and shown, and of the damaged ones a sentence is said at most."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

import pytest

from stages.store.errors import UserError
from stages.store.rundir import RunDir
from stages.store.workspace import Workspace
from tests.workbench.conftest import add_dataset, screen_text, settled, wait_for
from tests.workbench.damage import damaged_run, whole_run
from tests.workbench.hostile import WatchedApp
from workbench.cli.root import run as command
from workbench.screens.runs import RunsScreen

BATCH = 20
GOOD = ("the-first-one", "the-last-one")
OPENED = 6
"""Of a batch in the app, where each is on the list and under the cursor."""


def damaged(workspace: Workspace, seed: int) -> list[RunDir]:
    """A batch of damaged runs between two good ones."""
    draw = random.Random(seed)
    add_dataset(workspace, "world")
    whole_run(workspace, GOOD[0], 0)
    made = [damaged_run(workspace, draw, number) for number in range(1, BATCH + 1)]
    whole_run(workspace, GOOD[1], BATCH + 1)
    return made


def said(*arguments: str) -> str:
    """What a command refuses with: one line; empty where it does its work."""
    try:
        assert command(list(arguments)) == 0
    except UserError as refused:
        assert str(refused) and "\n" not in str(refused), arguments
        return str(refused)
    return ""


@pytest.mark.parametrize("seeds", [[0, 1, 2], pytest.param(range(100, 190), marks=pytest.mark.soak)])
def test_commands_list_the_others_and_say_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
    workspace: Workspace,
    seeds: Sequence[int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    refusals = 0
    for seed in seeds:
        place = Workspace(workspace.root / str(seed)).ensure()
        monkeypatch.setenv("WORKBENCH_HOME", str(place.root))
        made = damaged(place, seed)
        capsys.readouterr()
        assert said("runs", "--json") == ""
        assert {row["name"] for row in json.loads(capsys.readouterr().out)} >= set(GOOD)
        for asked in (["runs"], ["models"], ["lineage"], ["compare", *GOOD]):
            assert said(*asked) == ""
            out = capsys.readouterr().out
            assert asked == ["models"] or all(name in out for name in GOOD), asked
        for run in made:
            for asked in (["runs", "show", run.id], ["compare", GOOD[0], run.id], ["card", run.id]):
                refusals += bool(said(*asked))
    assert refusals > len(seeds)


@pytest.mark.parametrize("seeds", [[3], pytest.param(range(200, 210), marks=pytest.mark.soak)])
async def test_the_app_shows_the_others(workspace: Workspace, seeds: Sequence[int]) -> None:
    for seed in seeds:
        place = Workspace(workspace.root / str(seed)).ensure()
        made = damaged(place, seed)
        app = WatchedApp(place)
        async with app.run_test(size=(160, 60)) as pilot:
            app.watch_driver()
            await settled(pilot)
            await pilot.press("R")
            await wait_for(pilot, lambda app=app: isinstance(app.screen, RunsScreen))
            await wait_for(pilot, lambda app=app: all(name in screen_text(app) for name in GOOD))
            for _ in range(BATCH + 1):
                await pilot.press("j")
            await settled(pilot)
            for run in made[:OPENED]:
                app.open_run(run)
                await settled(pilot)
                app.go("runs")
                await settled(pilot)
        assert not app.acting, f"the first: {app.acting[0]}"
