"""Jump mode: letters on all that takes the focus, on places, forms and questions; one goes there, escape leaves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from textual.pilot import Pilot

from stages.store.workspace import Workspace
from tests.workbench.conftest import SIZES, screen_text, settled, wait_for
from workbench.app import WorkbenchApp
from workbench.screens.help import HelpScreen
from workbench.screens.jump import JumpScreen, Letter
from workbench.screens.question import Ask, Question
from workbench.screens.writing import Writing
from workbench.settings import Settings
from workbench.widgets.fields import LineInput
from workbench.widgets.prompt import Prompt

MakeApp = Callable[..., WorkbenchApp]
Snapshot = Callable[[Pilot[Any], str], Awaitable[None]]


async def jump(pilot: Pilot[Any]) -> JumpScreen:
    await settled(pilot)
    await pilot.press("ctrl+g")
    await wait_for(pilot, lambda: isinstance(pilot.app.screen, JumpScreen))
    await settled(pilot)
    assert isinstance(pilot.app.screen, JumpScreen)
    return pilot.app.screen


@pytest.mark.parametrize("size", SIZES)
async def test_letters_stand_on_all_that_takes_the_focus(
    make_app: MakeApp, populated: Workspace, snapshot: Snapshot, size: tuple[int, int]
) -> None:
    app = make_app()
    async with app.run_test(size=size) as pilot:
        await pilot.press("D")
        shown = await jump(pilot)
        assert {widget.id for widget, _ in shown.places.values()} >= {"dataset", "tokenizer"}
        await snapshot(pilot, f"jump-{size[0]}x{size[1]}")


async def test_a_letter_focuses_its_part_and_escape_leaves_the_focus(make_app: MakeApp, populated: Workspace) -> None:
    app = make_app()
    async with app.run_test() as pilot:
        await pilot.press("D")
        shown = await jump(pilot)
        letter, target = next((key, widget) for key, (widget, _) in shown.places.items() if widget.id == "tokenizer")
        await pilot.press("escape")
        await wait_for(pilot, lambda: app.screen is target.screen)
        assert app.focused is not target
        await jump(pilot)
        await pilot.press("0", letter)
        await wait_for(pilot, lambda: app.focused is target)


async def test_it_goes_to_another_text_field_and_types_nothing(make_app: MakeApp, populated: Workspace) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        app.start_run("pretrain", {})
        await wait_for(pilot, lambda: isinstance(app.focused, LineInput))
        before = [field.value for field in app.screen.query(LineInput)]
        shown = await jump(pilot)
        places = [place for _, place in shown.places.values()]
        assert len(set(places)) == len(places) > 10
        letter, target = next(
            (key, widget) for key, (widget, _) in reversed(shown.places.items()) if isinstance(widget, LineInput)
        )
        await pilot.press(letter)
        await wait_for(pilot, lambda: app.focused is target)
        assert [field.value for field in app.screen.query(LineInput)] == before


async def test_it_works_over_a_dialog_and_by_mouse(make_app: MakeApp) -> None:
    app, dialog = make_app(), Ask("Name", "Any.", "", str)
    async with app.run_test() as pilot:
        await settled(pilot)
        await app.push_screen(dialog)
        shown = await jump(pilot)
        letter = shown.query(Letter).last()
        await pilot.click(letter)
        await wait_for(pilot, lambda: app.screen is dialog)
        assert app.focused is shown.places[letter.letter][0]


async def test_it_leads_out_of_a_field_of_several_lines(make_app: MakeApp) -> None:
    app, dialog = make_app(), Writing("Write", "a line")
    async with app.run_test() as pilot:
        await settled(pilot)
        await app.push_screen(dialog)
        await jump(pilot)
        await pilot.press("escape")
        await wait_for(pilot, lambda: app.screen is dialog)
        assert dialog.query_one(Prompt).text == "a line"


async def test_where_nothing_takes_the_focus_it_says_so(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(notifications=True) as pilot:
        await settled(pilot)
        await app.push_screen(Question("Sure?", "No way back.", yes="do it"))
        await pilot.press("ctrl+g")
        await wait_for(pilot, lambda: "Nothing here takes the focus" in screen_text(app))


async def test_its_key_can_be_changed_and_the_help_names_it(make_app: MakeApp) -> None:
    app = make_app(settings=Settings(keys={"app.jump": "f4"}))
    async with app.run_test(size=(120, 60)) as pilot:
        await settled(pilot)
        await pilot.press("f4")
        await wait_for(pilot, lambda: isinstance(app.screen, JumpScreen))
        await pilot.press("f4")
        await wait_for(pilot, lambda: not isinstance(app.screen, JumpScreen))
        await pilot.press("question_mark")
        await wait_for(pilot, lambda: isinstance(app.screen, HelpScreen))
        await settled(pilot)
        row = next(row for row in screen_text(app).split("\n") if "app.jump" in row)
        assert "f4" in row


async def test_it_leaves_when_the_window_changes(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test() as pilot:
        await jump(pilot)
        await pilot.resize_terminal(100, 30)
        await wait_for(pilot, lambda: not isinstance(app.screen, JumpScreen))
