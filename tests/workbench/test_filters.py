"""`/` filters every list and table in the same way: as one types, kept by enter, all shown again by escape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from textual.events import Key
from textual.pilot import Pilot
from textual.screen import Screen

from stages.store.bin import throw
from stages.store.rundir import RunDir
from stages.store.workspace import Workspace
from tests.workbench.conftest import add_checkpoint, add_run, screen_text, settled, wait_for
from workbench.app import WorkbenchApp
from workbench.screens.bin import BinScreen
from workbench.screens.checkpoints import CheckpointScreen
from workbench.screens.elo import EloScreen
from workbench.screens.help import HelpScreen
from workbench.screens.models import ModelsScreen
from workbench.screens.pick import Pick
from workbench.screens.question import Ask
from workbench.widgets.fields import LineInput
from workbench.widgets.filter_field import FilterField
from workbench.widgets.picklist import PickList

MakeApp = Callable[..., WorkbenchApp]
Opening = Callable[[WorkbenchApp], Screen[Any]]


def many(workspace: Workspace) -> None:
    """Two runs with checkpoints, and two in the bin."""
    for name in ("first-model", "other-model"):
        add_checkpoint(add_run(workspace, "pretrain", name), 10)
        throw(workspace, RunDir(add_run(workspace, "pretrain", f"{name}-gone").path).path)


PLACES: dict[str, tuple[Opening, str, str]] = {
    "bin": (lambda app: BinScreen(app.workspace), "first-model-gone", "other-model-gone"),
    "checkpoints": (lambda app: CheckpointScreen(app.workspace), "first-model@10", "other-model@10"),
    "models": (lambda app: ModelsScreen(), "gpt2-large", "tiny-bert"),
    "names": (lambda app: Pick("Which?", ["alpha", "beta"]), "alpha", "beta"),
    "keys": (lambda app: HelpScreen.of(app.screen), "app.jump", "app.machine"),
}
"""By what is filtered: how it opens, and two things that it shows."""


async def shown(pilot: Pilot[Any], *texts: str, gone: str = "") -> None:
    """Wait until all `texts` are on the screen, and `gone` is not."""

    def fact() -> bool:
        now = screen_text(pilot.app)
        return all(text in now for text in texts) and (not gone or gone not in now)

    await wait_for(pilot, fact)


@pytest.mark.parametrize("place", PLACES)
async def test_a_filter_narrows_what_is_listed_and_escape_shows_all(
    place: str, make_app: MakeApp, workspace: Workspace
) -> None:
    many(workspace)
    opening, one, other = PLACES[place]
    app = make_app()
    async with app.run_test(size=(120, 60)) as pilot:
        await settled(pilot)
        screen = opening(app)
        await app.push_screen(screen)
        await shown(pilot, one, other)
        await pilot.press("slash", *one[:-1], "enter")
        await shown(pilot, one, gone=other)
        assert app.screen is screen and not isinstance(app.focused, FilterField)
        await pilot.press("escape")
        await shown(pilot, one, other)
        assert app.screen is screen
        await pilot.press("slash", *"nosuchthing")
        await shown(pilot, gone=one)
        await pilot.press("escape")
        await shown(pilot, one, other)


async def test_each_list_of_a_screen_has_a_filter_of_its_own(make_app: MakeApp, populated: Workspace) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("D")
        await shown(pilot, "world-bpe", "notes")
        await pilot.press("slash", *"notes", "enter")
        await wait_for(pilot, lambda: app.screen._names("dataset") and app.screen._list("dataset")._shown)
        await shown(pilot, "world-bpe")
        assert [key for key, _ in app.screen._list("dataset")._shown] == ["notes"]
        app.screen.choose("dataset", "world")
        await wait_for(pilot, lambda: app.screen._list("dataset").chosen == "world")


async def test_letters_in_the_same_packet_as_the_key_are_typed_into_the_field(
    make_app: MakeApp, populated: Workspace
) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("R")
        await shown(pilot, "world-tiny")
        app.post_message(Key("slash", "/"))
        for letter in "down":
            app.post_message(Key(letter, letter))
        await wait_for(pilot, lambda: app.screen.query(FilterField) and app.screen.query_one(FilterField).value)
        await shown(pilot, "No run has all of down")


async def test_a_slash_in_a_text_field_is_a_slash(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test() as pilot:
        await settled(pilot)
        await app.push_screen(Ask("Name", "Any.", "", str))
        await pilot.press(*"a/b")
        await wait_for(pilot, lambda: app.screen.query_one(LineInput).value)
        assert app.screen.query_one(LineInput).value == "a" + "/b"


async def test_a_screen_without_a_list_offers_no_filter(make_app: MakeApp, workspace: Workspace) -> None:
    app = make_app()
    async with app.run_test(size=(160, 40)) as pilot:
        await settled(pilot)
        assert "/ Filter" not in screen_text(app)  # there are no runs yet
        await app.push_screen(EloScreen(workspace))
        await settled(pilot)
        await pilot.press("slash", "escape")
        await wait_for(pilot, lambda: not isinstance(app.screen, EloScreen))


async def test_a_page_of_a_list_that_has_no_room_is_nothing(make_app: MakeApp, workspace: Workspace) -> None:
    many(workspace)
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await app.push_screen(CheckpointScreen(app.workspace))
        await shown(pilot, "first-model@10")
        await pilot.resize_terminal(40, 10)
        await settled(pilot)
        await pilot.press("end", "pageup", "pagedown")
        await pilot.resize_terminal(120, 40)
        await pilot.press("pageup")
        assert app.screen.query_one(PickList).highlighted == 0
