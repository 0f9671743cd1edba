"""Runs by the compute they log, whatever their stage, and one sentence where a run has logged none."""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec
import pytest

from stages.store.rundir import RunDir
from stages.store.workspace import Workspace
from tests.workbench.conftest import CREATED, add_run, screen_text, wait_for
from workbench import __main__ as entry
from workbench.app import WorkbenchApp

MakeApp = Callable[..., WorkbenchApp]


def add(workspace: Workspace, stage: str, name: str, each: float | None) -> RunDir:
    """A run of fifty steps, each of which takes so many operations."""
    run = add_run(workspace, stage, name)
    rows = [
        {"step": step, "time": CREATED + step, "train/loss": 2.0, "tokens": 1e3 * step}
        | ({} if each is None else {"compute": each * step})
        for step in range(1, 51)
    ]
    run.metrics.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    return run


def test_runs_of_any_stage_are_compared_by_compute(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add(workspace, "sft", "tuned", 2e9)
    add(workspace, "ppo", "policy", 8e9)
    command = ["workbench", "compare", "tuned", "policy", "--metric", "train/loss", "--against", "compute", "--json"]
    monkeypatch.setattr("sys.argv", command)
    assert entry.main() == 0
    rows = [row for row in json.loads(capsys.readouterr().out) if row["kind"] == "curve"]
    ends = [row["compute"] for row in rows if row["tuned"] is not None]
    assert ends[-1] >= 100e9 > ends[-2]  # the smaller one ends earlier
    assert rows[-1]["tuned"] is None and rows[-1]["policy"] == 2.0


async def test_the_plot_goes_on_to_compute_where_it_is_known(workspace: Workspace, make_app: MakeApp) -> None:
    add(workspace, "reward", "small", 3e8)
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("R")
        await wait_for(pilot, lambda: "└┬" in screen_text(app))
        for axis in ("tokens", "time", "compute"):
            await pilot.press("x")
            await wait_for(pilot, lambda told=f"against {axis}": told in screen_text(app))
        await wait_for(pilot, lambda: "10G" in screen_text(app))
        await pilot.press("x")
        await wait_for(pilot, lambda: "against" not in screen_text(app))


async def test_a_comparison_says_how_many_runs_logged_no_compute(workspace: Workspace, make_app: MakeApp) -> None:
    add(workspace, "sft", "new", 2e8)
    add(workspace, "sft", "old", None)
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("R")
        await wait_for(pilot, lambda: "└┬" in screen_text(app))
        await pilot.press("space", "down", "space")
        await wait_for(pilot, lambda: "◆" in screen_text(app))
        await pilot.press("x", "x", "x")
        await wait_for(pilot, lambda: "1 of 2 logged no compute" in screen_text(app))


def test_a_run_without_compute_is_named_in_one_line(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add(workspace, "sft", "new", 2e8)
    add(workspace, "sft", "old", None)
    monkeypatch.setattr(
        "sys.argv", ["workbench", "compare", "new", "old", "--metric", "train/loss", "--against", "compute"]
    )
    assert entry.main() == 2
    told = capsys.readouterr().err
    assert "'old' logged no compute" in told and "'new'" not in told
