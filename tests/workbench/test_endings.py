"""The end of a run is told wherever one is, and a shell completes commands."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import msgspec
import pytest

from stages.store.locks import try_lock
from stages.store.workspace import Workspace, installation_root
from tests.workbench.conftest import add_run, screen_text, settled, wait_for
from workbench.app import WorkbenchApp
from workbench.board.endings import Endings, desktop_notice, notice
from workbench.screens.run import RunScreen


def test_only_what_ended_since_and_by_itself_is_told(workspace: Workspace) -> None:
    runs = {}
    for name in ("done", "crashed", "stopped-by-hand", "goes-on"):
        runs[name] = add_run(workspace, "pretrain", name, "running")
    held = {name: try_lock(run.lock) for name, run in runs.items()}
    add_run(workspace, "pretrain", "long-ago")
    endings = Endings(workspace)
    assert endings.look() == []
    for name, status in (("done", "finished"), ("crashed", "failed"), ("stopped-by-hand", "stopped")):
        runs[name].write_state(msgspec.structs.replace(runs[name].state(), status=status))
        os.close(held[name] or 0)
    assert sorted(entry.spec.name for entry in endings.look()) == ["crashed", "done"]
    assert endings.look() == []
    os.close(held["goes-on"] or 0)
    found = endings.look()
    assert notice(found) == "goes-on has died."


async def test_it_is_told_wherever_one_is(
    workspace: Workspace, make_app: Callable[..., WorkbenchApp], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.lookout.ENDINGS_INTERVAL", 0.1)
    run = add_run(workspace, "pretrain", "night", "running")
    held = try_lock(run.lock)
    app = make_app()
    bells = []
    monkeypatch.setattr(app, "bell", lambda: bells.append(1))
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await settled(pilot)
        await wait_for(pilot, lambda: app._lookout.endings is not None and app._lookout.endings._live)
        run.write_state(msgspec.structs.replace(run.state(), status="finished"))
        os.close(held or 0)
        await wait_for(pilot, lambda: "night is finished." in screen_text(app))
        assert bells == [1]


async def test_no_toast_covers_the_page_of_the_run_that_ended(
    workspace: Workspace, make_app: Callable[..., WorkbenchApp], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.lookout.ENDINGS_INTERVAL", 0.1)
    run = add_run(workspace, "pretrain", "night", "running")
    held = try_lock(run.lock)
    app = make_app()
    bells = []
    monkeypatch.setattr(app, "bell", lambda: bells.append(1))
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        app.open_run(run)
        await wait_for(pilot, lambda: isinstance(app.screen, RunScreen) and app.screen.run_in_view() is not None)
        await wait_for(pilot, lambda: app._lookout.endings is not None and app._lookout.endings._live)
        run.write_state(msgspec.structs.replace(run.state(), status="finished"))
        os.close(held or 0)
        await wait_for(pilot, lambda: bool(bells))
        assert not app._notifications


def test_the_notice_on_the_desktop_is_one_sequence() -> None:
    assert desktop_notice("night is finished.") == "\x1b]9;night is finished.\x07"


def test_a_shell_completes_commands() -> None:
    environment = os.environ | {"_WORKBENCH_COMPLETE": "bash_complete", "COMP_WORDS": "workbench to", "COMP_CWORD": "1"}
    command = [sys.executable, "-m", "workbench"]
    found = subprocess.run(
        command, cwd=installation_root(), env=environment, capture_output=True, text=True, timeout=60
    )
    assert found.stdout == "plain,tokenizer\n"
    script = subprocess.run(
        [*command, "completion", "zsh"], cwd=installation_root(), capture_output=True, text=True, timeout=60
    )
    assert "_WORKBENCH_COMPLETE=zsh_complete" in script.stdout
