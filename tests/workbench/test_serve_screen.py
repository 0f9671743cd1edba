"""Serving from inside the app: what the endpoint says is shown, s ends it, and it never outlives the app."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from textual.pilot import Pilot

from stages.store.rundir import RunDir
from stages.store.workspace import Workspace
from tests.workbench.conftest import CREATED, add_checkpoint, add_run, screen_text, settled, wait_for
from workbench.app import WorkbenchApp
from workbench.commands import Commands
from workbench.screens.serve import ServeScreen
from workbench.talking import serving
from workbench.talking.serving import KEPT, TOO_LONG, Serving
from workbench.widgets.run_list import RunList

MakeApp = Callable[..., WorkbenchApp]

ENDPOINT = """
import os, sys
token = os.environ["WORKBENCH_SERVE_TOKEN"]
print(f"Serving it on CPU.\\n  address  http://127.0.0.1:1/v1\\n  token    {token}", flush=True)
sys.stdin.read()
open(sys.argv[1], "w").close()
"""
"""Says what an endpoint says, and ends with its stdin, but answers first."""


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where an endpoint leaves a trace that it had the time to answer."""

    def command(folder: Path, options: list[str]) -> list[str]:
        assert "--until-stdin-ends" in options and folder.name.startswith("step-")
        return [sys.executable, "-c", ENDPOINT, str(tmp_path / "answered")]

    monkeypatch.setattr(serving, "serve_command", command)
    monkeypatch.setattr(serving, "own_token", lambda: "abc")
    return tmp_path / "answered"


@pytest.fixture
def tuned(workspace: Workspace) -> RunDir:
    run = add_run(workspace, "sft", "tuned", last_checkpoint="step-10")
    add_checkpoint(run, 10)
    return run


async def open_list(pilot: Pilot[Any]) -> RunList:
    await settled(pilot)
    await pilot.press("R")
    await wait_for(pilot, lambda: pilot.app.screen.query(RunList) and pilot.app.screen.query_one(RunList).entry)
    return pilot.app.screen.query_one(RunList)


@pytest.mark.usefixtures("endpoint", "tuned")
async def test_a_checkpoint_is_served_until_it_is_stopped_or_the_app_ends(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await open_list(pilot)
        await pilot.press("S")
        await wait_for(
            pilot, lambda: "token    abc" in screen_text(app) and "workbench serve tuned" in screen_text(app)
        )
        await pilot.press("escape", "S")
        await wait_for(pilot, lambda: isinstance(app.screen, ServeScreen))
        first = app.serving
        assert first is not None and first.standing == "serving", "leaving the screen leaves it at work"
        await pilot.press("s")
        await wait_for(pilot, lambda: "ended" in screen_text(app))
        assert first.standing == "ended"
        await pilot.press("o")
        await wait_for(pilot, lambda: "tuned@10" in screen_text(app))
        await pilot.press("enter")
        await wait_for(pilot, lambda: app.serving is not first and app.serving and app.serving.standing == "serving")
        assert app.serving is not None and app.serving.name == "tuned@10"
        process = app.serving._process
        assert process is not None
    assert not psutil.pid_exists(process.pid)


@pytest.mark.usefixtures("endpoint")
async def test_what_is_served_makes_way_only_when_asked_and_then_whatever_screen_one_goes_to(
    tuned: RunDir, make_app: MakeApp
) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await open_list(pilot)
        await pilot.press("S")
        await wait_for(pilot, lambda: "token    abc" in screen_text(app))
        first = app.serving
        assert first is not None
        await pilot.press("escape")
        add_checkpoint(tuned, 20)
        tuned.write_state(msgspec.structs.replace(tuned.state(), last_checkpoint="step-20"))
        await pilot.press("S")
        await wait_for(pilot, lambda: "r serves tuned (step-20) in its place" in screen_text(app))
        assert app.serving is first and first.standing == "serving"
        await pilot.press("r", "escape")
        await wait_for(pilot, lambda: app.serving is not first and app.serving and app.serving.standing == "serving")
        assert first.ended and not isinstance(app.screen, ServeScreen)
        titles = [command.title for command in Commands(app.screen)._commands()]
        assert "endpoint: show" in titles, "S serves; this shows"
        app.action_endpoint()
        await wait_for(pilot, lambda: "token    abc" in screen_text(app))
        assert app.serving is not None and app.serving.folder.name == "step-20"


@pytest.mark.usefixtures("endpoint")
async def test_the_run_under_the_cursor_is_served_and_no_other_of_its_name(
    tuned: RunDir, workspace: Workspace, make_app: MakeApp
) -> None:
    newer = add_run(workspace, "sft", "tuned", created=CREATED + 90, last_checkpoint="step-10")
    add_checkpoint(newer, 10)
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        (await open_list(pilot)).select(tuned.id)
        await pilot.press("S")
        await wait_for(pilot, lambda: "token    abc" in screen_text(app))
        assert app.serving is not None and app.serving.name == "tuned"
        assert f"workbench serve {tuned.id}@10" in screen_text(app), "by name the command would serve the newer one"
        assert app.serving.folder.is_relative_to(tuned.path)


@pytest.mark.usefixtures("tuned")
async def test_leaving_gives_answers_a_moment(endpoint: Path, make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await open_list(pilot)
        await pilot.press("S")
        await wait_for(pilot, lambda: "token    abc" in screen_text(app))
        await app.action_detach()
    assert endpoint.exists()


async def test_a_run_without_a_checkpoint_has_nothing_to_serve(workspace: Workspace, make_app: MakeApp) -> None:
    add_run(workspace, "sft", "young")
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await open_list(pilot)
        await pilot.press("S")
        await wait_for(pilot, lambda: any("no checkpoint to serve" in note.message for note in app._notifications))


async def test_address_and_token_stay_whatever_else_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said = f"""
print("Serving it on CPU.\\n  address  http://127.0.0.1:1/v1\\n  token    abc")
print("x" * 200_000)
print("Invalid HTTP request received.\\n" * {2 * KEPT} + "the end")
"""
    monkeypatch.setattr(serving, "serve_command", lambda folder, options: [sys.executable, "-c", said])
    one = Serving("tuned", Path("step-10"))
    one.take("  address  http://127.0.0.1:1/v1")
    for _ in range(2 * KEPT):
        one.take("Invalid HTTP request received.")
    assert one.standing == "serving"
    one = Serving("tuned", Path("step-10"))
    await one.run()
    assert one.ended and one.lines[2] == "  token    abc" and one.lines[-1] == "the end"
    assert len(one.lines) == KEPT + 3


async def test_a_line_too_long_to_be_read_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "print('x' * 200_000); print('the end')"
    monkeypatch.setattr(serving, "serve_command", lambda folder, options: [sys.executable, "-c", said])
    one = Serving("tuned", Path("step-10"))
    await one.run()
    assert TOO_LONG in one.lines and "the end" in one.lines[-1] and one.ended


async def test_an_endpoint_that_cannot_be_started_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(serving, "serve_command", lambda folder, options: [str(tmp_path / "nowhere")])
    one = Serving("tuned", Path("step-10"))
    await one.run()
    assert one.ended and one.lines == ["The endpoint cannot be started: No such file or directory."]
    await one.stop()


@pytest.mark.usefixtures("endpoint")
async def test_one_that_is_about_to_start_is_ended_too() -> None:
    unwanted = Serving("tuned", Path("step-10"))
    await unwanted.stop()
    await unwanted.run()
    assert unwanted.ended and unwanted._process is None
    starting = Serving("tuned", Path("step-10"))
    run = asyncio.create_task(starting.run())
    await asyncio.sleep(0)
    assert starting._process is None
    await starting.stop()
    await run
    process = starting._process
    assert starting.ended and process is not None and process.returncode is not None
