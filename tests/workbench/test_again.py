"""A run is done again: to the same bits, with a change, and not when a parent is no longer what it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stages.store.checkpoints import list_checkpoints
from stages.store.errors import UserError
from stages.store.rundir import Parent, RunDir, find_run, list_runs
from stages.store.workspace import Workspace
from tests.stages.helpers import TINY, build_small_world, finish
from tests.workbench.conftest import add_checkpoint, add_run, settled, wait_for
from tests.workbench.test_runs_screens import open_runs
from workbench import runs
from workbench.app import WorkbenchApp
from workbench.board.again import form_values, repeat
from workbench.cli.root import run as command
from workbench.screens.run import RunScreen
from workbench.screens.start import StartScreen
from workbench.widgets.form import SpecForm
from workbench.widgets.run_list import RunList


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, RunDir]:
    folder = tmp_path_factory.mktemp("again")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        workspace = build_small_world(folder)
        first = finish(runs.launch(workspace, "pretrain", "first", TINY, dataset="rhymes", tokenizer="bytes"))
    return workspace, first


def weights(run: RunDir) -> bytes:
    return (list_checkpoints(run)[-1].path / "model.safetensors").read_bytes()


def test_a_repetition_ends_with_the_same_bits_and_a_change_with_others(
    world: tuple[Workspace, RunDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, first = world
    monkeypatch.setenv("WORKBENCH_HOME", str(workspace.root))
    assert command(["runs", "repeat", "first"]) == 0
    assert weights(find_run(workspace, "first-2")) == weights(first)
    assert command(["runs", "repeat", "first-2", "--set", "seed=5", "--name", "other"]) == 0
    other = find_run(workspace, "other")
    assert weights(other) != weights(first)
    assert other.spec().parents == first.spec().parents
    with pytest.raises(UserError, match="'seed' is 'x'"):
        command(["runs", "repeat", "first", "--set", "seed=x"])


def test_a_parent_that_is_no_longer_what_it_was_is_named(world: tuple[Workspace, RunDir], tmp_path: Path) -> None:
    workspace, first = world
    elsewhere = Workspace(tmp_path / "ws").ensure()
    with pytest.raises(UserError, match="dataset 'rhymes' is gone"):
        repeat(elsewhere, first)
    with pytest.raises(UserError, match="files outside the workspace"):
        repeat(workspace, find_run(workspace, "rhymes"))


async def test_the_form_comes_filled_as_it_was(
    world: tuple[Workspace, RunDir], make_app: Callable[..., WorkbenchApp], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, first = world
    assert form_values(workspace, first)["dataset"] == "rhymes"
    app = make_app()
    app.workspace = workspace
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await open_runs(pilot)
        await settled(pilot)
        screen.query_one(RunList).select(first.id)
        await pilot.press("T")
        await wait_for(pilot, lambda: isinstance(app.screen, StartScreen))
        settings, extra = app.screen.query_one(SpecForm).split(app.screen.query_one(SpecForm).peek())
        assert settings == first.spec().settings
        assert (extra["dataset"], extra["tokenizer"]) == ("rhymes", "bytes")
        assert extra["name"].startswith("first-")


async def test_one_key_does_a_run_again_exactly(
    world: tuple[Workspace, RunDir], make_app: Callable[..., WorkbenchApp]
) -> None:
    workspace, first = world
    app = make_app()
    app.workspace = workspace
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await open_runs(pilot)
        await settled(pilot)
        screen.query_one(RunList).select(first.id)
        await pilot.press("E")
        await wait_for(pilot, lambda: isinstance(app.screen, RunScreen))
    again = finish(list_runs(workspace)[0])
    assert again.id != first.id and again.spec().parents == first.spec().parents
    assert weights(again) == weights(first)


def test_the_reward_model_and_the_setting_of_that_name_have_a_field_each(
    populated: Workspace,
) -> None:
    judge = add_run(populated, "reward", "judge")
    add_checkpoint(judge, 10)
    scored_by = Parent(str(list_checkpoints(judge)[0].path), "j" * 64)
    parents = {"reward": scored_by, "dataset": Parent("questions", "q" * 64)}
    run = add_run(populated, "ppo", "kind", settings={"reward": "model"}, parents=parents)
    values = form_values(populated, run)
    assert (values["reward"], values["reward_model"], values["dataset"]) == ("model", "judge@10", "questions")
