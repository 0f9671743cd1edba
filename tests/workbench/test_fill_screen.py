"""Filling blanks in the app: typing asks the encoder, candidates have probabilities, hostile text is tame."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from textual.pilot import Pilot

from stages.store.errors import UserError
from stages.store.workspace import Workspace
from tests.workbench.conftest import CREATED, SIZES, add_checkpoint, add_run, screen_text, settled, wait_for
from workbench.app import WorkbenchApp
from workbench.screens.fill import FillScreen
from workbench.talking.desk_client import DeskClient
from workbench.widgets.text_field import TextField

MakeApp = Callable[..., WorkbenchApp]
Snapshot = Callable[[Pilot[None], str], Awaitable[None]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the desk is asked; it answers what an encoder might."""
    questions: list[dict[str, Any]] = []

    async def ask(self: DeskClient, verb: str, **args: Any) -> Any:
        questions.append({"verb": verb, **args})
        if "___" not in args["text"]:
            raise UserError("There is no blank in the text.", "Write ___ or [MASK] where one is.")
        shares = {"cold": 0.912, "warm": 0.04, "\x1b[31mred": 0.01}
        blank = [{"text": text, "probability": share} for text, share in shares.items()]
        return {"text": args["text"].replace("___", "cold"), "blanks": [blank]}

    monkeypatch.setattr(DeskClient, "ask", ask)
    return questions


async def open_fill(pilot: Pilot[None], workspace: Workspace) -> FillScreen:
    run = add_run(workspace, "bert", "encoder", created=CREATED + 90, last_checkpoint="step-2000")
    add_checkpoint(run, 2_000)
    pilot.app.open_run(run)  # type: ignore[attr-defined]  # a WorkbenchApp
    await wait_for(pilot, lambda: "encoder" in screen_text(pilot.app) and pilot.app.screen.run_in_view())  # type: ignore[attr-defined]  # a RunScreen
    await pilot.press("c")
    await wait_for(pilot, lambda: isinstance(pilot.app.screen, FillScreen))
    await settled(pilot)
    assert isinstance(pilot.app.screen, FillScreen)
    return pilot.app.screen


@pytest.mark.parametrize("size", SIZES)
async def test_it_looks_like_this(
    populated: Workspace, make_app: MakeApp, snapshot: Snapshot, asked: list[dict[str, Any]], size: tuple[int, int]
) -> None:
    async with make_app().run_test(size=size) as pilot:
        await open_fill(pilot, populated)
        await wait_for(pilot, lambda: "91.2%" in screen_text(pilot.app))
        await snapshot(pilot, f"fill-{size[0]}x{size[1]}")


async def test_typing_asks_once_it_pauses_and_a_text_without_blank_is_told(
    populated: Workspace, make_app: MakeApp, asked: list[dict[str, Any]]
) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await open_fill(pilot, populated)
        await wait_for(pilot, lambda: asked)
        screen.query_one(TextField).text = "Nothing to fill."
        await wait_for(pilot, lambda: "There is no blank in the text." in screen_text(pilot.app))
        assert asked[-1]["verb"] == "fill.of"
        await pilot.press("escape", "escape")
        await wait_for(pilot, lambda: not isinstance(pilot.app.screen, FillScreen))


async def test_hostile_candidates_are_shown_as_text(
    populated: Workspace, make_app: MakeApp, asked: list[dict[str, Any]]
) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        await open_fill(pilot, populated)
        await wait_for(pilot, lambda: "␛[31mred" in screen_text(pilot.app))
