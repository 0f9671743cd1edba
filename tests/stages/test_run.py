"""The worker's hold on its run: the heartbeat between reports, and what it says while it waits."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.__main__ import waiting
from stages.run import Run
from stages.store.queue import Ticket
from stages.store.rundir import RunDir, RunSpec, create_run
from stages.store.workspace import Workspace


@pytest.fixture
def run(tmp_path: Path) -> Run:
    workspace = Workspace(tmp_path / "ws").ensure()
    return Run(create_run(workspace, RunSpec(stage="pretrain", name="mine", settings={})).path)


def test_a_silent_worker_beats_and_one_that_reports_or_has_ended_does_not(run: Run) -> None:
    run.set_status("running")
    at = run.dir.state().heartbeat
    run.beat(60.0)
    assert run.dir.state().heartbeat == at
    run.beat(0.0)
    assert run.dir.state().heartbeat > at
    run.set_status("finished")
    at = run.dir.state().heartbeat
    run.beat(0.0)
    assert run.dir.state().heartbeat == at


def test_a_waiting_run_names_one_of_another_workspace_and_says_where_it_is(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    elsewhere = Workspace(tmp_path / "other").ensure()
    other = create_run(elsewhere, RunSpec(stage="pretrain", name="theirs", settings={}))
    before = Ticket("cpu", other.id, run=other.path)
    mine = Ticket("cpu", run.dir.id, run=run.dir.path)
    try:
        assert waiting(run, "CPU", mine.ahead()) == f"waiting for CPU, behind theirs in {elsewhere.root}"
    finally:
        before.release()
        mine.release()


def test_a_waiting_run_names_those_before_it_as_far_as_they_are_known_here(run: Run) -> None:
    other: RunDir = create_run(run.workspace, RunSpec(stage="pretrain", name="first", settings={}))
    assert waiting(run, "CPU", [other.id]) == "waiting for CPU, behind first"
    assert waiting(run, "CPU", ["of-another-workspace", other.id]) == "waiting for CPU, behind first (2 ahead)"
    assert waiting(run, "CPU", ["of-another-workspace"]) == "waiting for CPU (1 ahead)"
