"""The mouse: in lists a click goes to an entry, a second one opens it, the wheel scrolls; an answer takes one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from textual.app import App, ComposeResult
from textual.content import Content
from textual.events import MouseScrollDown
from textual.pilot import Pilot
from textual.widget import Widget
from textual.widgets import OptionList

from stages.store.workspace import Workspace
from tests.workbench.conftest import DATASET_DIGEST, add_dataset, add_run, screen_text, wait_for
from workbench.app import WorkbenchApp
from workbench.screens.question import Question
from workbench.screens.tokenizer import TokenizerScreen
from workbench.widgets.picklist import PickList
from workbench.widgets.row_table import RowTable

NAMES = [f"entry-{number}" for number in range(60)]


class Lists(App[None]):
    """A list and a table, and what was opened in them."""

    CSS = "PickList, RowTable { height: 1fr; }"

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str | None] = []

    def compose(self) -> ComposeResult:
        yield PickList()
        yield RowTable()

    def on_mount(self) -> None:
        self.query_one(PickList).show([(name, Content(name)) for name in NAMES])
        self.query_one(RowTable).show(["name", "length"], [(name, [name, "1"]) for name in NAMES])

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.opened.append(event.option.id)

    def on_row_table_opened(self, event: RowTable.Opened) -> None:
        self.opened.append(event.key)


@pytest.mark.parametrize("kind", [PickList, RowTable], ids=["list", "table"])
async def test_a_click_goes_to_an_entry_and_a_second_one_opens_it(kind: type[Widget]) -> None:
    app = Lists()
    async with app.run_test(size=(60, 24)) as pilot:
        await pilot.pause()
        await pilot.click(kind, offset=(3, 4))
        await pilot.pause()
        chosen = app.query_one(kind)
        assert isinstance(chosen, PickList | RowTable)
        assert (chosen.chosen, app.opened) == ("entry-3", [])
        await pilot.click(kind, offset=(3, 4), times=2)
        await pilot.pause()
        assert app.opened == ["entry-3"]


@pytest.mark.parametrize("kind", [PickList, RowTable], ids=["list", "table"])
async def test_the_wheel_scrolls_and_leaves_the_cursor(kind: type[Widget]) -> None:
    app = Lists()
    async with app.run_test(size=(60, 24)) as pilot:
        await pilot.pause()
        widget = app.query_one(kind)
        for _ in range(5):
            widget.post_message(MouseScrollDown(widget, 1, 1, 0, 0, 0, False, False, False))
            await pilot.pause()
        assert widget.scroll_y > 0 or widget.scroll_target_y > 0
        assert app.opened == []


async def click_on(pilot: Pilot[None], words: str) -> None:
    """Click where these words stand on the screen."""
    y, row = next((y, row) for y, row in enumerate(screen_text(pilot.app).splitlines()) if words in row)
    await pilot.click(offset=(row.index(words) + 1, y))


@pytest.mark.parametrize(("words", "answer"), [("delete it", True), ("n esc  no", False)])
async def test_a_question_is_answered_by_a_click(
    make_app: Callable[..., WorkbenchApp], words: str, answer: bool
) -> None:
    app, given = make_app(), list[bool | None]()
    async with app.run_test(size=(80, 24)) as pilot:
        app.push_screen(Question("Delete it?", "It can be taken back.", yes="delete it"), given.append)
        await wait_for(pilot, lambda: words in screen_text(app))
        await click_on(pilot, "It can be taken back.")
        await click_on(pilot, words)
        await wait_for(pilot, lambda: given)
        assert given == [answer]


async def test_what_comes_next_is_opened_by_a_click(
    make_app: Callable[..., WorkbenchApp], workspace: Workspace
) -> None:
    add_dataset(workspace, "world", digest=DATASET_DIGEST)
    run = add_run(workspace, "build", "world")
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        app.open_run(run)
        await wait_for(pilot, lambda: app.screen.query("#onward") and "Train a tokenizer on world" in screen_text(app))
        await click_on(pilot, "Train a tokenizer on world")
        await wait_for(pilot, lambda: isinstance(app.screen, TokenizerScreen))
