"""Data: lists, reports, runs that make more, and the forms that start them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from stages.store.rundir import RunDir, RunError
from stages.store.workspace import Workspace
from tests.workbench.conftest import CREATED, SIZES, add_dataset, add_run, add_tokenizer, screen_text, settled, wait_for
from workbench import runs
from workbench.app import WorkbenchApp
from workbench.screens.build import BuildScreen
from workbench.screens.data import DataScreen
from workbench.screens.tokenizer import TokenizerScreen
from workbench.widgets.form import SpecForm

MakeApp = Callable[..., WorkbenchApp]
Snapshot = Callable[..., Awaitable[None]]


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch, workspace: Workspace) -> list[tuple[str, str, dict[str, Any]]]:
    """What was launched: (stage, name, everything else); no process is started."""
    calls: list[tuple[str, str, dict[str, Any]]] = []

    def launch(_: Workspace, stage: str, name: str, settings: dict[str, Any], **rest: Any) -> RunDir:
        calls.append((stage, name, {"settings": settings, **rest}))
        return add_run(workspace, stage, name)

    monkeypatch.setattr(runs, "launch", launch)
    return calls


@pytest.mark.parametrize("size", SIZES)
async def test_snapshot(make_app: MakeApp, populated: Workspace, snapshot: Snapshot, size: tuple[int, int]) -> None:
    async with make_app().run_test(size=size) as pilot:
        await pilot.press("D")
        await settled(pilot)
        await pilot.press("j")
        await snapshot(pilot, f"data-{size[0]}x{size[1]}")


@pytest.mark.parametrize("size", SIZES)
async def test_build_form_snapshot(make_app: MakeApp, snapshot: Snapshot, size: tuple[int, int]) -> None:
    async with make_app().run_test(size=size) as pilot:
        await pilot.press("D")
        await settled(pilot)
        await pilot.press("n")
        await snapshot(pilot, f"build-{size[0]}x{size[1]}")


@pytest.mark.parametrize("size", SIZES)
async def test_tokenizer_form_snapshot(
    make_app: MakeApp, populated: Workspace, snapshot: Snapshot, size: tuple[int, int]
) -> None:
    async with make_app().run_test(size=size) as pilot:
        await pilot.press("D")
        await settled(pilot)
        await pilot.press("t")
        await snapshot(pilot, f"tokenizer-{size[0]}x{size[1]}")


async def test_report_names_removed_examples_and_problems(make_app: MakeApp, populated: Workspace) -> None:
    app = make_app()
    async with app.run_test(size=(120, 50)) as pilot:
        app.show_data("dataset", "notes")
        await wait_for(pilot, lambda: "Problems (3)" in screen_text(app))
        shown = screen_text(app)
        assert "41 removed" in shown and "The sky is blue." in shown
        assert "notes.jsonl:10 text: the field is missing" in shown
        assert "page␌break" in shown


async def test_running_build_shows_progress_and_is_cancelled(make_app: MakeApp, workspace: Workspace) -> None:
    run = add_run(workspace, "build", "big", "running", step=30, total=100, unit="bytes", rate=2e6, eta=42.0)
    assert run.acquire() is not None
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("D")
        await wait_for(pilot, lambda: "30 %" in screen_text(app) or "30%" in screen_text(app))
        assert "0:42 to go" in screen_text(app)
        await pilot.press("x")
        await wait_for(pilot, lambda: [path.name for path in run.control.glob("*-stop.json")])


async def test_failed_build_says_why(make_app: MakeApp, workspace: Workspace) -> None:
    add_run(workspace, "build", "bad", "failed", error=RunError("UserError", "No text was found.", "Name a folder."))
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("D")
        await wait_for(pilot, lambda: "No text was found." in screen_text(app) and "Name a folder." in screen_text(app))


async def test_build_form_launches_with_absolute_paths(
    make_app: MakeApp, tmp_path: Path, launched: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("text")
    monkeypatch.chdir(tmp_path)
    app = make_app()
    async with app.run_test() as pilot:
        app.start_run("build", {"sources": ["a.txt"], "name": "mine"})
        await wait_for(pilot, lambda: isinstance(app.screen, BuildScreen))
        await settled(pilot)
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: "runs › mine" in screen_text(app))
    stage, name, rest = launched[0]
    assert (stage, name) == ("build", "mine") and rest["settings"]["sources"] == [str(tmp_path / "a.txt")]


@pytest.mark.parametrize(
    ("values", "field", "sentence"),
    [
        ({"name": "a/b", "sources": ["starter:world"]}, "name", "cannot be the name"),
        ({"name": "", "sources": ["starter:world"]}, "name", "cannot be the name"),
        ({"name": "world", "sources": ["starter:world"]}, "name", "already a dataset"),
        ({"name": "x", "sources": []}, "sources", "at least one"),
        ({"name": "x", "sources": ["/no/such/file"]}, "sources", "no file or folder"),
        ({"name": "x", "sources": ["starter:wrld"]}, "sources", "Did you mean"),
        ({"name": "x", "sources": ["starter:world"], "split": "half"}, "split", "expected"),
    ],
)
async def test_mistakes_stay_on_the_build_form(
    make_app: MakeApp, populated: Workspace, launched: list[Any], values: dict[str, Any], field: str, sentence: str
) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        app.start_run("build", values)
        await wait_for(pilot, lambda: isinstance(app.screen, BuildScreen))
        await settled(pilot)
        await pilot.press("enter")
        row = app.screen.query_one(SpecForm).rows[field]
        await wait_for(pilot, lambda: row.has_class("-wrong"))
        assert app.focused is row.editor
        assert sentence in str(row.query_one(".note").render())
        assert launched == []


async def test_tokenizer_form_launches_on_its_dataset(
    make_app: MakeApp, populated: Workspace, launched: list[Any]
) -> None:
    app = make_app()
    async with app.run_test() as pilot:
        app.start_run("tokenizer", {"dataset": "world"})
        await wait_for(pilot, lambda: isinstance(app.screen, TokenizerScreen))
        await settled(pilot)
        await pilot.press("enter")
        await wait_for(pilot, lambda: launched)
    stage, name, rest = launched[0]
    assert (stage, name, rest["dataset"]) == ("tokenizer", "world-bpe-2", "world")


async def test_pretraining_starts_with_what_is_selected(
    make_app: MakeApp, populated: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(WorkbenchApp, "start_run", lambda _, stage, values: asked.append((stage, values)))
    app = make_app()
    async with app.run_test() as pilot:
        app.show_data("dataset", "world")
        await wait_for(pilot, lambda: "text dataset" in screen_text(app))
        await settled(pilot)
        await pilot.press("p")
        assert asked == [("pretrain", {"dataset": "world", "tokenizer": "world-bpe"})]


async def test_newest_comes_first_and_the_selection_stays(make_app: MakeApp, workspace: Workspace) -> None:
    add_dataset(workspace, "aa", created=1.0)
    add_dataset(workspace, "bb", created=2.0, digest="d2" * 32)
    add_tokenizer(workspace, "t")
    app = make_app()
    async with app.run_test() as pilot:
        await pilot.press("D")
        await settled(pilot)
        await pilot.press("j")
        assert "aa" in screen_text(app).split("\n")[0]
        add_dataset(workspace, "cc", created=3.0, digest="d3" * 32)
        await wait_for(pilot, lambda: "cc" in screen_text(app))
        assert "aa" in screen_text(app).split("\n")[0]


async def test_launched_build_is_selected_and_stays_so_as_a_dataset(make_app: MakeApp, populated: Workspace) -> None:
    run = add_run(populated, "build", "aa", "running", step=30, total=100, unit="bytes")
    lock = run.acquire()
    assert lock is not None
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        app.show_data("dataset", "aa")
        await wait_for(pilot, lambda: "build run" in screen_text(app))
        add_dataset(populated, "aa", digest="aa" * 32, created=CREATED - 1)
        state = run.state()
        state.status = "finished"
        run.write_state(state)
        await wait_for(pilot, lambda: "digest aaaa" in screen_text(app))
        assert "aa" in screen_text(app).split("\n")[0]


async def test_deleting_asks_first_and_names_what_needs_it(make_app: MakeApp, populated: Workspace) -> None:
    add_dataset(populated, "spare", digest="d3" * 32, created=CREATED + 1)
    app = make_app()
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await pilot.press("D")
        await settled(pilot)
        await pilot.press("d")
        await wait_for(pilot, lambda: "Delete the dataset spare?" in screen_text(app))
        await pilot.press("n")
        await settled(pilot)
        assert (populated.datasets / "spare").exists()
        await pilot.press("d", "y")
        await wait_for(pilot, lambda: not (populated.datasets / "spare").exists())
        screen = app.screen
        assert isinstance(screen, DataScreen)
        await settled(pilot)
        screen.choose("dataset", "world")
        await pilot.press("d")
        await wait_for(pilot, lambda: "Delete the dataset world?" in screen_text(app))
        await pilot.press("y")
        await wait_for(pilot, lambda: "needs it first" in screen_text(app))
        assert (populated.datasets / "world").exists()


async def test_nothing_selected_is_not_offered_for_deletion(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("D")
        await settled(pilot)
        assert "Delete" not in screen_text(app)
        await pilot.press("d")
        assert isinstance(app.screen, DataScreen)
