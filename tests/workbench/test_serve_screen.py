"""Serving from inside the app: what the endpoint says is shown, s ends it, and it never outlives the app."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from stages.store.workspace import Workspace
from tests.workbench.conftest import add_checkpoint, add_run, screen_text, settled, wait_for
from workbench.app import WorkbenchApp
from workbench.screens.serve import ServeScreen
from workbench.talking import serving
from workbench.widgets.run_list import RunList

ENDPOINT = """
import sys
print("Serving it on CPU.\\n  address  http://127.0.0.1:1/v1\\n  token    abc", flush=True)
sys.stdin.read()
"""
"""Says what an endpoint says, and ends with its stdin."""


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    def command(folder: Path, options: list[str]) -> list[str]:
        assert "--until-stdin-ends" in options and folder.name == "step-10"
        return [sys.executable, "-c", ENDPOINT]

    monkeypatch.setattr(serving, "serve_command", command)


@pytest.mark.usefixtures("endpoint")
async def test_a_checkpoint_is_served_until_it_is_stopped_or_the_app_ends(
    workspace: Workspace, make_app: Callable[..., WorkbenchApp]
) -> None:
    run = add_run(workspace, "sft", "tuned", last_checkpoint="step-10")
    add_checkpoint(run, 10)
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await pilot.press("R")
        await wait_for(pilot, lambda: app.screen.query(RunList) and app.screen.query_one(RunList).entry)
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


async def test_a_run_without_a_checkpoint_has_nothing_to_serve(
    workspace: Workspace, make_app: Callable[..., WorkbenchApp]
) -> None:
    add_run(workspace, "sft", "young")
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await pilot.press("R")
        await wait_for(pilot, lambda: app.screen.query(RunList) and app.screen.query_one(RunList).entry)
        await pilot.press("S")
        await wait_for(pilot, lambda: any("no checkpoint to serve" in note.message for note in app._notifications))
