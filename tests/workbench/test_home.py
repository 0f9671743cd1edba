"""Home: the life of a workspace on the screen, and what enter does with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from stages.store.checkpoints import list_checkpoints
from stages.store.rundir import Parent, RunDir, find_run
from stages.store.workspace import Workspace
from tests.workbench.conftest import (
    CREATED,
    SIZES,
    add_checkpoint,
    add_dataset,
    add_run,
    add_tokenizer,
    screen_text,
    settled,
    wait_for,
)
from workbench.app import WorkbenchApp
from workbench.screens.build import BuildScreen
from workbench.screens.data import DataScreen
from workbench.widgets.steps import LifeRow

MakeApp = Callable[..., WorkbenchApp]
Snapshot = Callable[..., Awaitable[None]]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the app was asked to open: (way, what)."""
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(WorkbenchApp, "open_run", lambda _, run: calls.append(("run", run.spec().name)))
    monkeypatch.setattr(WorkbenchApp, "open_chat", lambda _, text: calls.append(("chat", text)))
    start = WorkbenchApp.start_run

    def start_run(app: WorkbenchApp, stage: str, values: dict[str, Any]) -> None:
        calls.append(("start", stage, dict(values)))
        if stage == "build":
            start(app, stage, values)

    monkeypatch.setattr(WorkbenchApp, "start_run", start_run)
    return calls


@pytest.mark.parametrize("size", SIZES)
async def test_empty_snapshot(make_app: MakeApp, snapshot: Snapshot, size: tuple[int, int]) -> None:
    async with make_app().run_test(size=size) as pilot:
        await snapshot(pilot, f"home-empty-{size[0]}x{size[1]}")


@pytest.mark.parametrize("size", SIZES)
async def test_populated_snapshot(
    make_app: MakeApp, populated: Workspace, snapshot: Snapshot, size: tuple[int, int]
) -> None:
    async with make_app().run_test(size=size) as pilot:
        await snapshot(pilot, f"home-{size[0]}x{size[1]}")


async def test_enter_on_an_empty_workspace_opens_the_build_form_filled_in(make_app: MakeApp, opened: list[Any]) -> None:
    app = make_app()
    async with app.run_test() as pilot:
        await settled(pilot)
        await pilot.press("enter")
        await wait_for(pilot, lambda: isinstance(app.screen, BuildScreen))
        await wait_for(pilot, lambda: "starter:world" in screen_text(app))


async def test_enter_follows_the_life(make_app: MakeApp, workspace: Workspace, opened: list[Any]) -> None:
    add_dataset(workspace, "world")
    add_tokenizer(workspace, "world-bpe", dataset="world")
    app = make_app()
    async with app.run_test() as pilot:
        await settled(pilot)
        await pilot.press("enter")
        assert opened == [("start", "pretrain", {"dataset": "world", "tokenizer": "world-bpe", "name": "world-tiny"})]
        await pilot.press("left", "enter")
        await wait_for(pilot, lambda: isinstance(app.screen, DataScreen))
        await wait_for(pilot, lambda: "bytes per token" in screen_text(app))


async def test_enter_opens_models_and_chat(make_app: MakeApp, populated: Workspace, opened: list[Any]) -> None:
    app = make_app()
    async with app.run_test() as pilot:
        await settled(pilot)
        row = app.screen.query_one(LifeRow)
        row.cursor = 7
        await pilot.press("enter")
        row.cursor = 2
        await pilot.press("enter")
        assert opened == [("chat", "world-tiny"), ("run", "world-tiny")]
        row.cursor = 5
        await pilot.press("enter")
        await wait_for(pilot, lambda: "comes after the steps before it" in screen_text(app))
        assert len(opened) == 2
        row.cursor = 4
        await pilot.press("enter")
        await wait_for(pilot, lambda: "Label sets" in screen_text(app))


async def test_recent_run_opens(make_app: MakeApp, populated: Workspace, opened: list[Any]) -> None:
    app = make_app()
    async with app.run_test() as pilot:
        await settled(pilot)
        app.screen.query_one("#recent").focus()
        await pilot.press("j", "enter")
        await wait_for(pilot, lambda: opened)
        assert opened == [("run", "cut-off")]


async def test_failure_is_explained_where_it_happened(make_app: MakeApp, workspace: Workspace) -> None:
    from stages.store.rundir import RunError

    add_run(workspace, "build", "mine", "failed", error=RunError("UserError", "Nothing is left.", "Lower the limit."))
    app = make_app()
    async with app.run_test(size=(100, 30)) as pilot:
        await settled(pilot)
        assert "Nothing is left. Lower the limit." in screen_text(app)


async def test_screen_follows_the_workspace(make_app: MakeApp, workspace: Workspace) -> None:
    app = make_app()
    async with app.run_test() as pilot:
        await settled(pilot)
        add_dataset(workspace, "fresh")
        await wait_for(pilot, lambda: "fresh" in screen_text(app))


async def test_nothing_hidden_is_read(make_app: MakeApp, populated: Workspace) -> None:
    app = make_app()
    async with app.run_test() as pilot:
        await settled(pilot)
        home = app.screen
        await pilot.press("D")
        await wait_for(pilot, lambda: isinstance(app.screen, DataScreen))
        await settled(pilot)
        assert not any(timer._active.is_set() for timer, _ in home._polls)  # type: ignore[attr-defined]
        await pilot.press("H")
        await wait_for(pilot, lambda: all(timer._active.is_set() for timer, _ in home._polls))  # type: ignore[attr-defined]


async def test_brackets_turn_through_the_lineages(make_app: MakeApp, populated: Workspace) -> None:
    app = make_app()
    async with app.run_test() as pilot:
        await settled(pilot)
        await pilot.press("right_square_bracket")
        await wait_for(pilot, lambda: "notes › 2 of 2" in screen_text(app))


@pytest.mark.parametrize("cursor", range(8))
async def test_every_step_has_advice(make_app: MakeApp, populated: Workspace, cursor: int) -> None:
    app = make_app()
    async with app.run_test() as pilot:
        await settled(pilot)
        app.screen.query_one(LifeRow).cursor = cursor
        await pilot.pause()
        assert str(app.screen.query_one("#advice").render()).strip()


async def test_status_that_changes_is_drawn_in_its_colour(make_app: MakeApp, workspace: Workspace) -> None:
    from textual.content import Content

    from workbench.widgets.picklist import PickList

    app = make_app()
    async with app.run_test() as pilot:
        await settled(pilot)
        names = app.screen.query_one("#recent", PickList)
        names.show([("a", Content.styled("one", "red"))])
        names.show([("a", Content.styled("one", "green"))])
        prompt = names.get_option("a").prompt
        assert isinstance(prompt, Content) and str(prompt.spans[0].style) == "green"


async def test_n_on_the_policy_asks_by_which_method(make_app: MakeApp, populated: Workspace, opened: list[Any]) -> None:
    tuned = from_checkpoint(populated, "sft", "tuned", find_run(populated, "world-tiny"))
    from_checkpoint(populated, "dpo", "better", tuned)
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        row = app.screen.query_one(LifeRow)
        row.cursor = 6
        await pilot.press("n")
        await wait_for(pilot, lambda: "Improve the model by what?" in screen_text(app))
        await pilot.press("end", "enter")
        await wait_for(pilot, lambda: opened)
        assert opened == [("start", "ppo", {})]


def from_checkpoint(workspace: Workspace, stage: str, name: str, origin: RunDir) -> RunDir:
    """A finished run that went on from the last checkpoint of another, with one of its own."""
    parent = list_checkpoints(origin)[-1]
    parents = {"checkpoint": Parent(str(parent.path), parent.digest())}
    run = add_run(workspace, stage, name, created=CREATED + 500, parents=parents)
    add_checkpoint(run, 10)
    return run
