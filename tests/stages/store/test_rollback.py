"""Rolling a run back: the earlier checkpoint becomes the last, and nothing of the later ones is lost."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec
import pytest

from stages.store.checkpoints import LINEAGE, Checkpoint, Lineage, list_checkpoints, verify, write_checkpoint
from stages.store.errors import UserError
from stages.store.rollback import roll_back
from stages.store.rundir import Parent, RunDir, RunSpec, RunState, create_run
from stages.store.workspace import Workspace


def add_run(workspace: Workspace, name: str, **parents: Parent) -> RunDir:
    run = create_run(workspace, RunSpec(stage="sft", name=name, settings={}, parents=parents, created=time.time()))
    run.write_state(RunState(status="paused", step=30, last_checkpoint="step-30"))
    return run


def add_checkpoint(run: RunDir, step: int) -> Checkpoint:
    def fill(folder: Path) -> None:
        lineage = Lineage(stage="sft", run=run.id, name=run.spec().name, step=step)
        (folder / LINEAGE).write_bytes(msgspec.json.encode(lineage))

    return write_checkpoint(run.checkpoints / f"step-{step}", fill)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "ws").ensure()


@pytest.fixture
def run(workspace: Workspace) -> RunDir:
    """A paused run with checkpoints at 10, 20 and 30."""
    run = add_run(workspace, "policy")
    for step in (10, 20, 30):
        add_checkpoint(run, step)
    return run


def test_later_checkpoints_are_set_aside_whole(workspace: Workspace, run: RunDir) -> None:
    moved = roll_back(workspace, run, 10)
    assert [checkpoint.step for checkpoint in list_checkpoints(run)] == [10]
    assert sorted(path.name for path in moved) == ["step-20", "step-30"]
    for path in moved:
        verify(path)
    assert (run.state().last_checkpoint, run.state().step) == ("step-10", 10)


def test_a_second_time_keeps_what_the_first_set_aside(workspace: Workspace, run: RunDir) -> None:
    roll_back(workspace, run, 20)
    add_checkpoint(run, 30)
    roll_back(workspace, run, 20)
    assert sorted(path.name for path in (run.path / "set-aside").iterdir()) == ["step-30", "step-30.2"]


def test_a_checkpoint_that_another_run_was_made_from_stays(workspace: Workspace, run: RunDir) -> None:
    last = list_checkpoints(run)[-1]
    add_run(workspace, "child", checkpoint=Parent(str(last.path), last.digest()))
    with pytest.raises(UserError, match="needed by run 'child'"):
        roll_back(workspace, run, 10)
    assert [checkpoint.step for checkpoint in list_checkpoints(run)] == [10, 20, 30]


def test_a_run_at_work_is_left_alone(workspace: Workspace, run: RunDir) -> None:
    descriptor = run.acquire()
    assert descriptor is not None
    with pytest.raises(UserError, match="at work"):
        roll_back(workspace, run, 10)
    os.close(descriptor)
    assert len(list_checkpoints(run)) == 3


def test_a_step_without_checkpoint_names_those_there_are(workspace: Workspace, run: RunDir) -> None:
    with pytest.raises(UserError, match=r"no checkpoint at step 15[\s\S]*10, 20, 30"):
        roll_back(workspace, run, 15)


def test_a_damaged_checkpoint_is_not_gone_back_to(workspace: Workspace, run: RunDir) -> None:
    path = run.checkpoints / "step-10" / LINEAGE
    path.write_bytes(path.read_bytes().replace(b"sft", b"SFT"))
    with pytest.raises(UserError, match="damaged"):
        roll_back(workspace, run, 10)
    assert len(list_checkpoints(run)) == 3
