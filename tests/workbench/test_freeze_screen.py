"""Labels frozen as a dataset from Rank: what the form says it makes is what the dataset holds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from textual.pilot import Pilot

from stages.store.datasets import find_dataset
from stages.store.labels import Candidate, Prompt, open_labels
from stages.store.records import Message
from stages.store.rundir import list_runs
from stages.store.workspace import Workspace
from tests.workbench.conftest import SIZES, screen_text, settled, wait_for
from workbench.app import WorkbenchApp
from workbench.screens.freeze import FreezeScreen
from workbench.screens.rank import RankScreen
from workbench.widgets.form import SpecForm

MakeApp = Callable[..., WorkbenchApp]
Snapshot = Callable[[Pilot[Any], str], Awaitable[None]]


@pytest.fixture
def judged(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Twelve prompts that ada ranked, of which ben ranked four: one of them the other way round."""
    monkeypatch.setenv("USER", "ada")
    with open_labels(workspace.labels) as labels:
        tasks = [
            (
                Prompt(messages=[Message("user", f"Question {n}?")], part="reward" if n < 8 else "eval"),
                [Candidate(run="r", k=k, text=f"answer {n}-{k}") for k in range(2)],
            )
            for n in range(12)
        ]
        chosen = labels.add_set("boats", "rank", tasks, people=2)
        for who, places in (("ada", range(12)), ("ben", range(4))):
            for place in places:
                shown = labels.at(chosen.id, place)
                assert shown is not None
                best = "0" if who == "ada" or place else "1"
                ranks = [1 if one.text.endswith(best) else 2 for one in shown.completions]
                labels.save(shown.label("rank", who, ranks=ranks, seconds=3.0))
    return workspace


async def open_form(pilot: Pilot[Any]) -> FreezeScreen:
    """From Home by keys."""
    await pilot.press("K")
    await wait_for(pilot, lambda: isinstance(pilot.app.screen, RankScreen) and "boats" in screen_text(pilot.app))
    await settled(pilot)
    await pilot.press("d")
    await wait_for(pilot, lambda: isinstance(pilot.app.screen, FreezeScreen))
    await settled(pilot)
    assert isinstance(pilot.app.screen, FreezeScreen)
    return pilot.app.screen


async def put(pilot: Pilot[Any], screen: FreezeScreen, **texts: str) -> str:
    """Fill fields of the form; what the screen shows then."""
    for name, text in texts.items():
        screen.query_one(SpecForm).rows[name].text = text
    await settled(pilot)
    return screen_text(pilot.app)


async def test_the_form_tells_what_the_filters_leave(judged: Workspace, make_app: MakeApp) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await open_form(pilot)
        shown = screen_text(pilot.app)
        assert "16 rankings of 12 prompts" in shown and "ada 12" in shown and "ben 4" in shown
        shown = await put(pilot, screen, only_agreed="yes")
        assert "14 rankings of 11 prompts" in shown and "1 prompt left out, in conflict" in shown
        assert "12 rankings of 8 prompts" in await put(pilot, screen, only_agreed="no", part="reward")
        assert "4 rankings of 4 prompts" in await put(pilot, screen, annotators="ben")
        assert "No label that was chosen makes" in await put(pilot, screen, part="eval")
        assert "12 answers of 8 prompts" in await put(pilot, screen, part="reward", annotators="", makes="best answers")
        assert "'soon' is no day" in await put(pilot, screen, since="soon")


async def test_a_dataset_is_made_by_keys_alone(judged: Workspace, make_app: MakeApp) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await open_form(pilot)
        assert screen.query_one(SpecForm).rows["name"].text == "boats-labels"
        await put(pilot, screen, annotators="ada")
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: "boats-labels" in screen_text(pilot.app) and pilot.app.screen is not screen)
        (run,) = list_runs(judged)
        await wait_for(pilot, lambda: run.status() == "finished")
        info = find_dataset(judged, "boats-labels").info
        assert (info.kind, sum(info.records.values())) == ("preference", 12)
        assert list((judged.root / "spool").iterdir()) == []


async def test_mistakes_stay_at_their_fields_and_nothing_is_left_behind(judged: Workspace, make_app: MakeApp) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await open_form(pilot)
        await put(pilot, screen, since="2026-13-01")
        await pilot.press("ctrl+r")
        await settled(pilot)
        assert screen.query_one(SpecForm).rows["since"].blamed is not None
        await put(pilot, screen, since="", annotators="bem")
        await pilot.press("ctrl+r")
        await settled(pilot)
        assert "Nobody called 'bem' has labelled here. Did you mean 'ben'?" in screen_text(pilot.app)
        assert list_runs(judged) == [] and not (judged.root / "spool").exists()


@pytest.mark.parametrize("size", SIZES)
async def test_snapshot(judged: Workspace, make_app: MakeApp, snapshot: Snapshot, size: tuple[int, int]) -> None:
    async with make_app().run_test(size=size) as pilot:
        await open_form(pilot)
        await snapshot(pilot, f"freeze-{size[0]}x{size[1]}")
