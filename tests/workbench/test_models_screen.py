"""The sizes people quote, in the app: the table by a plan, all figures of one, the rate timed once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from textual.pilot import Pilot

from stages.store.errors import WorkFailed
from stages.store.presets import list_presets, load_preset
from stages.store.workspace import Workspace
from tests.workbench.conftest import SIZES, screen_text, settled, wait_for
from workbench.app import WorkbenchApp
from workbench.models.model_cards import find_card
from workbench.models.rates import Machine
from workbench.screens import models
from workbench.screens.models import ModelsScreen, stage_for
from workbench.screens.start import StartScreen
from workbench.talking.desk_client import DeskClient
from workbench.widgets.form import SpecForm
from workbench.widgets.row_table import RowTable

MakeApp = Callable[..., WorkbenchApp]
Snapshot = Callable[[Pilot[None], str], Awaitable[None]]

SHOWN = ("tiny", "tiny-bert", "t5-small", "gpt2-small", "gpt2-xl", "gpt3", "deepseek-r1")


@pytest.fixture(autouse=True)
def timed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A machine that is always the same, few models, and a desk that has timed it; the verbs that were asked."""
    asked: list[str] = []

    async def ask(self: DeskClient, verb: str, **args: Any) -> Any:
        asked.append(verb)
        return {"flops": 4e10, "precision": "bf16"}

    monkeypatch.setattr(DeskClient, "ask", ask)
    monkeypatch.setattr(models, "this_machine", lambda: Machine("8 CPU cores", 16 * 10**9, gpu=False))
    monkeypatch.setattr(models, "all_cards", lambda: [find_card(name) for name in SHOWN])
    return asked


async def open_models(pilot: Pilot[None]) -> ModelsScreen:
    await settled(pilot)
    await pilot.press("m")
    await wait_for(
        pilot, lambda: isinstance(pilot.app.screen, ModelsScreen) and "timed on this" in screen_text(pilot.app)
    )
    await settled(pilot)
    assert isinstance(pilot.app.screen, ModelsScreen)
    return pilot.app.screen


def row_of(screen: ModelsScreen, name: str) -> list[str]:
    return next(cells for key, cells in screen.query_one(RowTable)._shown[1] if key == name)


def test_every_preset_has_a_stage_that_makes_it() -> None:
    stages = {stage_for(load_preset(name).kind) for name in list_presets()}
    assert stages == {"pretrain", "bert", "t5", "transformer_xl"}


@pytest.mark.parametrize("size", SIZES)
async def test_it_looks_like_this(
    workspace: Workspace, make_app: MakeApp, snapshot: Snapshot, size: tuple[int, int]
) -> None:
    async with make_app().run_test(size=size) as pilot:
        await open_models(pilot)
        await pilot.press("j", "j", "j")
        await snapshot(pilot, f"models-{size[0]}x{size[1]}")


async def test_the_machine_is_timed_once_and_remembered(
    workspace: Workspace, make_app: MakeApp, timed: list[str]
) -> None:
    for _ in range(2):
        async with make_app().run_test(size=(120, 40)) as pilot:
            await open_models(pilot)
    assert timed == ["rate.of"]


async def test_the_plan_changes_every_figure_and_a_wrong_number_is_told(
    workspace: Workspace, make_app: MakeApp
) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await open_models(pilot)
        memory, time = row_of(screen, "gpt2-small")[2], row_of(screen, "gpt2-small")[4]
        await pilot.press("t", *"lots", "enter")
        await wait_for(pilot, lambda: "'lots' is no such number" in screen_text(pilot.app))
        await pilot.press(*["backspace"] * 4, *"300G", "enter")
        await wait_for(pilot, lambda: "Tokens: 300G" in screen_text(pilot.app))
        assert row_of(screen, "gpt2-small")[4] != time
        await pilot.press("b", "backspace", *"64", "enter")
        await wait_for(pilot, lambda: "Sequences at once: 64" in screen_text(pilot.app))
        assert row_of(screen, "gpt2-small")[2] != memory and row_of(screen, "gpt2-small")[3] == "run"
        await pilot.press("c", *"128", "enter")
        await wait_for(pilot, lambda: screen.plan.context == 128)
        await pilot.press("f")
        assert screen.plan.dtype == "fp32" and row_of(screen, "gpt2-small")[3] == "train"


async def test_enter_opens_the_form_with_the_preset_and_a_plan_says_that_it_is_one(
    populated: Workspace, make_app: MakeApp
) -> None:
    async with make_app().run_test(size=(120, 40), notifications=True) as pilot:
        await open_models(pilot)
        await pilot.press("G", "enter")
        await wait_for(pilot, lambda: "for planning only" in screen_text(pilot.app))
        table = pilot.app.screen.query_one(RowTable)
        table.move_cursor(row=SHOWN.index("tiny-bert"))
        await settled(pilot)
        await pilot.press("enter")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, StartScreen))
        await settled(pilot)
        screen = pilot.app.screen
        assert isinstance(screen, StartScreen)
        assert (screen.query_one(SpecForm).rows["preset"].text, screen.STAGE) == ("tiny-bert", "bert")


async def test_a_machine_that_cannot_be_timed_leaves_the_times_out(
    workspace: Workspace, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(self: DeskClient, verb: str, **args: Any) -> Any:
        raise WorkFailed("The helper ended.", "Look at its log.")

    monkeypatch.setattr(DeskClient, "ask", fail)
    async with make_app().run_test(size=(120, 40), notifications=True) as pilot:
        await settled(pilot)
        await pilot.press("m")
        await wait_for(pilot, lambda: "The helper ended." in screen_text(pilot.app))
        assert isinstance(pilot.app.screen, ModelsScreen) and "nothing tells how long" in screen_text(pilot.app)
        assert row_of(pilot.app.screen, "tiny")[4] == ""
