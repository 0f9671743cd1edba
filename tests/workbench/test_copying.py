"""What is copied where one is, to the terminal's clipboard and into a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from textual.app import App, ComposeResult

from stages.store.workspace import Workspace
from tests.workbench.conftest import add_run, wait_for
from workbench.app import WorkbenchApp
from workbench.copying import table_text
from workbench.widgets.row_table import RowTable
from workbench.widgets.run_list import RunList

MakeApp = Callable[..., WorkbenchApp]


class Tables(App[None]):
    def compose(self) -> ComposeResult:
        yield RowTable()


async def test_a_table_is_copied_as_spreadsheets_take_it() -> None:
    app = Tables()
    async with app.run_test() as pilot:
        table = app.query_one(RowTable)
        table.show(["name", "loss"], [("a", ["first", "1.5"]), ("b", ["second", "2"])])
        await pilot.pause()
        assert table_text(table) == "name\tloss\nfirst\t1.5\nsecond\t2\n"


async def test_the_folder_of_the_run_in_view_is_copied(make_app: MakeApp, workspace: Workspace, home: Path) -> None:
    run = add_run(workspace, "pretrain", "first")
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("R")
        await wait_for(pilot, lambda: app.screen.query(RunList) and app.screen.query_one(RunList).entry is not None)
        await pilot.press("Y")
        await wait_for(pilot, lambda: app.clipboard == str(run.path))
        assert (home / "state" / "workbench" / "copied.txt").read_text() == str(run.path)


async def test_where_there_is_nothing_to_copy_it_is_said(make_app: MakeApp, workspace: Workspace) -> None:
    app = make_app()
    async with app.run_test(notifications=True) as pilot:
        await pilot.press("C")
        await pilot.pause()
        app.action_copy()
        await wait_for(pilot, lambda: any("Nothing to copy" in n.message for n in app._notifications))
        assert not app.clipboard
