"""Sampling from the app: the form, what it launches, and the label set that appears by itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from textual.pilot import Pilot

from stages.store.completions import FILE, Line
from stages.store.labels import Prompt, open_labels
from stages.store.records import Message
from stages.store.rundir import RunDir, RunState, list_runs
from stages.store.workspace import Workspace
from tests.workbench.conftest import (
    CREATED,
    SIZES,
    add_checkpoint,
    add_dataset,
    add_run,
    screen_text,
    settled,
    wait_for,
)
from workbench import runs
from workbench.app import WorkbenchApp
from workbench.screens.rank import RankScreen
from workbench.screens.runs import RunsScreen
from workbench.screens.sample import TYPED, SampleScreen
from workbench.widgets.form import SpecForm
from workbench.widgets.text_field import TextField

MakeApp = Callable[..., WorkbenchApp]


@pytest.fixture
def models(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Two models and a set of prompts; runs are launched, but nothing works on them."""
    for number, name in enumerate(("base", "tuned")):
        run = add_run(workspace, "pretrain", name, created=CREATED + number, last_checkpoint="step-10")
        add_checkpoint(run, 10)
    add_dataset(workspace, "questions", kind="prompts", records={"all": 12})
    monkeypatch.setattr(runs, "start", lambda run, cpu_width=1: None)
    return workspace


async def open_form(pilot: Pilot[Any]) -> SampleScreen:
    """From Home by keys."""
    await pilot.press("K")
    await wait_for(pilot, lambda: isinstance(pilot.app.screen, RankScreen))
    await settled(pilot)
    await pilot.press("s")
    await wait_for(pilot, lambda: isinstance(pilot.app.screen, SampleScreen))
    await settled(pilot)
    assert isinstance(pilot.app.screen, SampleScreen)
    return pilot.app.screen


def launched(workspace: Workspace) -> list[RunDir]:
    return [run for run in list_runs(workspace) if run.spec().stage == "sample"]


def work_done(run: RunDir) -> None:
    """What the worker would have written."""
    prompts = [Prompt(messages=[Message("user", text)], part="sft") for text in run.spec().settings["prompts"]]
    lines = [
        Line(prompt=at, k=k, asked=one, text=f"{at}.{k}", checkpoint="base@10", digest="d", sampling={}, ended="end")
        for at, one in enumerate(prompts)
        for k in range(run.spec().settings["k"])
    ]
    (run.path / FILE).write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    run.write_state(RunState(status="finished", result={"prompts": len(prompts)}))


async def test_typed_prompts_are_sampled_and_their_set_appears_when_the_run_is_done(
    models: Workspace, make_app: MakeApp
) -> None:
    async with make_app().run_test(size=(120, 50), notifications=True) as pilot:
        screen = await open_form(pilot)
        form = screen.query_one(SpecForm)
        form.rows["dataset"].text = TYPED
        form.rows["checkpoints"].text = "tuned, base@10"
        form.rows["k"].text = "2"
        await settled(pilot)
        screen.query_one(TextField).text = "Why is the sky blue, say?\n\nName a fruit."
        await wait_for(pilot, lambda: "2 prompts · 4 completions by 2 checkpoints in turn" in screen_text(pilot.app))
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, RankScreen))
        (run,) = launched(models)
        spec = run.spec()
        assert spec.settings["prompts"] == ["Why is the sky blue, say?", "Name a fruit."]
        assert "dataset" not in spec.parents and len(spec.parents) == 2 and spec.settings["k"] == 2
        work_done(run)
        await wait_for(pilot, lambda: f"The label set {spec.name} is there" in screen_text(pilot.app))
    with open_labels(models.labels) as labels:
        (made,) = labels.sets()
        assert (made.name, made.mode, made.prompts) == (spec.name, "pair", 2)


async def test_a_dataset_is_sampled_and_mistakes_stay_in_the_form(models: Workspace, make_app: MakeApp) -> None:
    async with make_app().run_test(size=(120, 50)) as pilot:
        screen = await open_form(pilot)
        assert "12 prompts · 48 completions by tuned" in screen_text(pilot.app)
        form = screen.query_one(SpecForm)
        form.rows["dataset"].text = TYPED
        await settled(pilot)
        await pilot.press("ctrl+r")
        await settled(pilot)
        assert "No prompt is typed" in screen_text(pilot.app) and not launched(models)
        form.rows["dataset"].text = "questions"
        form.rows["checkpoints"].text = "nobody"
        await pilot.press("ctrl+r")
        await settled(pilot)
        assert "There is no run" in screen_text(pilot.app) and not launched(models)
        form.rows["checkpoints"].text = "base"
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: launched(models))
        (run,) = launched(models)
        assert run.spec().parents["dataset"].name == "questions" and run.spec().settings["prompts"] == []


async def test_a_large_set_is_sampled_by_the_dozen_and_the_total_stands_beside(
    models: Workspace, make_app: MakeApp
) -> None:
    add_dataset(models, "many", kind="prompts", records={"all": 13_828}, created=CREATED + 50)
    async with make_app().run_test(size=(120, 50)) as pilot:
        screen = await open_form(pilot)
        form = screen.query_one(SpecForm)
        form.rows["dataset"].text = "many"
        await wait_for(pilot, lambda: "12 of 13,828 prompts · 48 completions by tuned" in screen_text(pilot.app))
        form.rows["max_prompts"].text = ""
        await wait_for(pilot, lambda: "13,828 prompts · 55,312 completions by tuned" in screen_text(pilot.app))


async def test_from_runs_the_form_has_the_run_under_the_cursor(models: Workspace, make_app: MakeApp) -> None:
    async with make_app().run_test(size=(120, 50)) as pilot:
        await pilot.press("R")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, RunsScreen) and "tuned" in screen_text(pilot.app))
        await settled(pilot)
        await pilot.press("a")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, SampleScreen))
        await settled(pilot)
        assert pilot.app.screen.query_one(SpecForm).rows["checkpoints"].text == "tuned"


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_snapshot(
    size: tuple[int, int],
    models: Workspace,
    make_app: MakeApp,
    snapshot: Callable[[Pilot[Any], str], Awaitable[None]],
) -> None:
    async with make_app().run_test(size=size) as pilot:
        screen = await open_form(pilot)
        screen.query_one(SpecForm).rows["dataset"].text = TYPED
        await settled(pilot)
        screen.query_one(TextField).text = "Why is the sky blue, say?"
        await snapshot(pilot, f"sample-{size[0]}x{size[1]}")
