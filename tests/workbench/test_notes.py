"""Notes, bookmarks, the archive and the bin, in the app and by command."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence

import pytest

from stages.store.bin import Thrown, destroy, destroy_all, list_bin, throw
from stages.store.errors import UserError
from stages.store.notes import Notes, read_notes
from stages.store.rundir import list_runs
from stages.store.workspace import Workspace
from tests.workbench.conftest import add_run, screen_text, settled, wait_for
from tests.workbench.test_runs_screens import open_runs
from workbench.app import WorkbenchApp
from workbench.cli.root import run as command
from workbench.screens import bin as bin_screen
from workbench.screens.bin import BinScreen
from workbench.screens.question import Ask
from workbench.widgets.run_list import RunList

MakeApp = Callable[..., WorkbenchApp]


@pytest.fixture
def workspace(workspace: Workspace) -> Workspace:
    add_run(workspace, "pretrain", "first")
    add_run(workspace, "pretrain", "second", created=1_795_000_000.0)
    return workspace


async def test_a_run_is_noted_starred_put_away_and_found_again(workspace: Workspace, make_app: MakeApp) -> None:
    run = next(run for run in list_runs(workspace) if run.spec().name == "first")
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await open_runs(pilot)
        screen.query_one(RunList).select(run.id)
        await pilot.press("N")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, Ask))
        await pilot.press(*"the odd one", "enter")
        await wait_for(pilot, lambda: "the odd one" in screen_text(pilot.app))
        await pilot.press("b")
        await wait_for(pilot, lambda: "★ first" in screen_text(pilot.app))
        await pilot.press("slash", *"odd bookmarked", "enter")
        await wait_for(pilot, lambda: "second" not in screen_text(pilot.app))
        await pilot.press("escape")
        screen.query_one(RunList).select(run.id)
        await pilot.press("A")
        await wait_for(pilot, lambda: "1 archived" in screen_text(pilot.app))
        await wait_for(pilot, lambda: [entry.spec.name for entry in screen.query_one(RunList)._entries] == ["second"])
        assert read_notes(run) == Notes(note="the odd one", bookmarked=True, archived=True)
        await pilot.press("slash", *"archived", "enter")
        await wait_for(pilot, lambda: [entry.spec.name for entry in screen.query_one(RunList)._entries] == ["first"])


async def test_a_run_that_goes_while_its_note_is_written_is_a_sentence(workspace: Workspace, make_app: MakeApp) -> None:
    run = next(run for run in list_runs(workspace) if run.spec().name == "first")
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await open_runs(pilot)
        screen.query_one(RunList).select(run.id)
        await pilot.press("N")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, Ask))
        throw(workspace, run.path)
        await pilot.press(*"late", "enter")
        await wait_for(
            pilot, lambda: [toast.title for toast in pilot.app._notifications] == [f"The run {run.id} is gone."]
        )


def test_the_command_that_takes_a_run_back_calls_it_by_its_name(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["runs", "delete", "first", "--yes"]) == 0
    assert command(["bin", "restore", "first"]) == 0
    assert "first is back among the runs." in capsys.readouterr().out


async def test_what_is_deleted_is_taken_back_from_the_bin(workspace: Workspace, make_app: MakeApp) -> None:
    run = next(run for run in list_runs(workspace) if run.spec().name == "first")
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await open_runs(pilot)
        screen.query_one(RunList).select(run.id)
        await pilot.press("d")
        await pilot.pause()
        await pilot.press("y")
        await wait_for(pilot, lambda: not run.path.exists())
        await pilot.press("B")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, BinScreen) and "first" in screen_text(pilot.app))
        await pilot.press("enter")
        await wait_for(pilot, run.path.exists)
        await wait_for(pilot, lambda: "The bin is empty" in screen_text(pilot.app))
        for name in ("third", "fourth"):
            throw(workspace, add_run(workspace, "pretrain", name).path)
        await pilot.press("escape", "D")
        await settled(pilot)
        await pilot.press("B")
        await wait_for(pilot, lambda: "third" in screen_text(pilot.app))
        await pilot.press("E")
        await wait_for(pilot, lambda: "delete 2 things for good" in screen_text(pilot.app))
        await pilot.press("y")
        await wait_for(pilot, lambda: "The bin is empty" in screen_text(pilot.app))
        assert list_bin(workspace) == []


async def test_what_is_deleted_for_good_leaves_the_list_at_once_and_the_app_stays(
    workspace: Workspace, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first, _), go_on = list_runs(workspace), threading.Event()
    for run in list_runs(workspace):
        throw(workspace, run.path)

    def slow(chosen: Sequence[Thrown]) -> list[UserError]:
        assert go_on.wait(60)
        return [*destroy_all(chosen), UserError("One thing stays.")]

    monkeypatch.setattr(bin_screen, "destroy_all", slow)
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await open_runs(pilot)
        await pilot.press("B")
        await wait_for(
            pilot, lambda: "enter takes back" in screen_text(pilot.app) and "second" in screen_text(pilot.app)
        )
        await pilot.press("E")
        await wait_for(pilot, lambda: "delete 2 things for good" in screen_text(pilot.app))
        await pilot.press("y")
        await wait_for(pilot, lambda: "Emptying … 2 things are still being deleted" in screen_text(pilot.app))
        assert len(list_bin(workspace)) == 2, "deleting goes on behind it"
        await pilot.press("escape", "B")
        await wait_for(pilot, lambda: "Emptying … 2 things are still being deleted" in screen_text(pilot.app))
        for thrown in list_bin(workspace)[:1]:
            destroy(thrown)  # as another process would, that empties the bin too
        await pilot.press("E", "enter", "d")
        await pilot.pause()
        assert isinstance(pilot.app.screen, BinScreen) and not first.path.exists()
        go_on.set()
        await wait_for(pilot, lambda: "The bin is empty" in screen_text(pilot.app))
        await wait_for(pilot, lambda: any("One thing stays." in note.message for note in pilot.app._notifications))
        assert list_bin(workspace) == [] and screen.is_attached


def test_the_same_by_command(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["runs", "note", "first", "the odd one", "--archive"]) == 0
    assert capsys.readouterr().out == "archived · the odd one\n"
    command(["runs", "--json"])
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == ["second"]
    command(["runs", "list", "--all", "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert {row["name"]: row["note"] for row in rows} == {"first": "the odd one", "second": ""}
    assert command(["runs", "delete", "first", "--yes"]) == 0
    capsys.readouterr()
    command(["bin", "--json"])
    assert [(row["name"], row["kind"]) for row in json.loads(capsys.readouterr().out)] == [("first", "runs")]
    assert command(["bin", "restore", "first"]) == 0
    assert {run.spec().name for run in list_runs(workspace)} == {"first", "second"}
    assert command(["runs", "delete", "first", "--yes"]) == 0
    assert command(["bin", "empty", "--yes"]) == 0
    with pytest.raises(UserError, match="in the bin"):
        command(["bin", "restore", "first"])
