"""What comes after something that is done, and that enter goes there."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from stages.store.rundir import RunDir
from stages.store.workspace import Workspace
from tests.workbench.conftest import (
    CREATED,
    DATASET_DIGEST,
    add_checkpoint,
    add_dataset,
    add_run,
    add_tokenizer,
    screen_text,
    wait_for,
)
from tests.workbench.test_life import PARENTS, gone_on, judge, tuned_world
from workbench.app import WorkbenchApp
from workbench.board.run_board import Entry
from workbench.board.survey import Survey
from workbench.life.onward import after_chat, after_run, label
from workbench.life.steps import Step, lives
from workbench.screens.freeze import FreezeScreen
from workbench.screens.judge import JudgeScreen
from workbench.screens.run import RunScreen
from workbench.screens.tokenizer import TokenizerScreen

MakeApp = Callable[..., WorkbenchApp]


def comes_after(workspace: Workspace, run: RunDir) -> Step | None:
    facts = Entry(run, run.spec(), run.state(), run.status())
    return after_run(Survey(workspace).look(), facts)


def test_what_makes_something_leads_to_the_next_step(workspace: Workspace) -> None:
    add_dataset(workspace, "world")
    building = add_run(workspace, "build", "world")
    step = comes_after(workspace, building)
    assert step is not None and (step.key, label(step)) == ("tokenizer", "Train a tokenizer on world")
    add_tokenizer(workspace, "world-bpe", dataset="world")
    step = comes_after(workspace, add_run(workspace, "tokenizer", "world-bpe"))
    assert step is not None and (step.key, label(step)) == ("pretrain", "Pre-train a model on world")


def test_a_model_is_talked_to_before_the_life_goes_on(workspace: Workspace) -> None:
    add_dataset(workspace, "world", sources=["starter:world"])
    add_tokenizer(workspace, "world-bpe", dataset="world")
    base = add_run(workspace, "pretrain", "base", parents=PARENTS, created=CREATED, last_checkpoint="step-2000")
    add_checkpoint(base, 2_000)
    step = comes_after(workspace, base)
    assert step is not None and label(step) == "Chat with base"
    step = after_chat(lives(Survey(workspace).look()), base.id)
    assert step is not None and label(step) == "Build the conversations that it learns from"


def test_a_complete_life_has_nothing_after_its_last_talk(workspace: Workspace) -> None:
    tuned = tuned_world(workspace, ["starter:world"])
    add_dataset(workspace, "world-preferences", digest="cc" * 32, kind="preference")
    reward = gone_on(workspace, tuned, "reward", "judge")
    step = comes_after(workspace, reward)
    assert step is not None and label(step) == "Improve tuned by what is preferred (DPO)"
    better = gone_on(workspace, tuned, "dpo", "better")
    assert after_chat(lives(Survey(workspace).look()), better.id) is None


@pytest.mark.parametrize(
    ("kind", "wanted"), [("preference", "Train a reward model on mine"), ("chat", "Tune base on mine")]
)
def test_what_is_built_of_labels_is_learnt_from_though_the_life_is_complete(
    workspace: Workspace, kind: str, wanted: str
) -> None:
    tuned = tuned_world(workspace, ["starter:world"])
    judge(workspace)
    for stage in ("reward", "dpo"):
        gone_on(workspace, tuned, stage, f"by-{stage}")
    add_dataset(workspace, "mine", digest="cc" * 32, kind=kind)
    step = comes_after(workspace, add_run(workspace, "build", "mine", settings={"kind": kind}))
    assert step is not None and label(step) == wanted
    step = comes_after(workspace, add_run(workspace, "build", "texts", settings={"kind": "text"}))
    assert step is not None and step.key == "chat"


def test_what_was_sampled_is_judged(workspace: Workspace) -> None:
    step = comes_after(workspace, add_run(workspace, "sample", "answers"))
    assert step is not None and label(step) == "Judge answers"


def test_when_all_is_judged_a_dataset_is_made_of_it_and_then_the_life_goes_on(workspace: Workspace) -> None:
    tuned_world(workspace, ["starter:world"])
    sampled = add_run(workspace, "sample", "mine")
    judge(workspace)
    step = comes_after(workspace, sampled)
    assert step is not None and label(step) == "Make a dataset of your labels"
    settings = {"sources": ["labels"], "label_sets": ["mine"]}
    add_dataset(workspace, "mine-labels", digest="cc" * 32, kind="preference", settings=settings)
    step = comes_after(workspace, sampled)
    assert step is not None and label(step) == "Train a reward model on mine-labels"


@pytest.mark.parametrize(("stage", "status"), [("evaluate", "finished"), ("pretrain", "failed"), ("build", "stopped")])
def test_nothing_comes_after_what_leads_nowhere(workspace: Workspace, stage: str, status: str) -> None:
    assert comes_after(workspace, add_run(workspace, stage, "one", status)) is None  # type: ignore[arg-type]


async def test_enter_on_a_finished_run_goes_on(make_app: MakeApp, workspace: Workspace) -> None:
    add_dataset(workspace, "world", digest=DATASET_DIGEST)
    run = add_run(workspace, "build", "world")
    app = make_app()
    async with app.run_test() as pilot:
        app.open_run(run)
        await wait_for(pilot, lambda: isinstance(app.screen, RunScreen))  # Home says the same of what comes next
        await wait_for(pilot, lambda: "Train a tokenizer on world" in screen_text(app))
        await pilot.press("enter")
        await wait_for(pilot, lambda: isinstance(app.screen, TokenizerScreen))


async def test_enter_on_a_set_that_is_all_judged_makes_a_dataset(
    make_app: MakeApp, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USER", "ada")
    judge(workspace)
    app = make_app()
    async with app.run_test() as pilot:
        app.judge("mine")
        await wait_for(pilot, lambda: isinstance(app.screen, JudgeScreen))
        await wait_for(pilot, lambda: "Make a dataset of your labels" in screen_text(app))
        await pilot.press("enter")
        await wait_for(pilot, lambda: isinstance(app.screen, FreezeScreen))


@pytest.mark.parametrize(
    ("status", "last", "told"),
    [
        ("stopped", "step-200", "Go on with half from step 200"),
        ("failed", None, "Go on with half from its beginning"),
    ],
)
async def test_enter_on_a_run_that_ended_before_goes_on_with_it(
    make_app: MakeApp,
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    status: str,
    last: str | None,
    told: str,
) -> None:
    started: list[str] = []
    monkeypatch.setattr("workbench.runs.start", lambda run, **how: started.append(run.id))
    run = add_run(workspace, "pretrain", "half", status, step=212, last_checkpoint=last)
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        app.open_run(run)
        await wait_for(pilot, lambda: isinstance(app.screen, RunScreen) and told in screen_text(app))
        assert "enter resumes it" in screen_text(app)
        await pilot.press("enter")
        await wait_for(pilot, lambda: started == [run.id])
