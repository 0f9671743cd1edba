"""What a training worker does when the disk or the numbers fail it: a sentence, and the last good checkpoint intact."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from stages.pretrain import NextToken
from stages.run import Requests, Run
from stages.store.checkpoints import latest_verified, list_checkpoints, write_manifest
from stages.store.errors import WorkFailed
from stages.store.rundir import RunDir
from stages.store.specs.pretrain import Pretrain
from stages.store.workspace import Workspace
from stages.training.pretraining import prepare
from tests.stages.helpers import copy_of, finish, pretrain, wait_until
from workbench import runs

LONG = {"steps": 1_000_000, "checkpoint_every": 1_000_000, "sample_every": 0}


@pytest.fixture
def workspace(small_world: Workspace, tmp_path: Path) -> Workspace:
    return copy_of(small_world, tmp_path)


def with_a_checkpoint(workspace: Workspace) -> RunDir:
    """A run at work that has saved one checkpoint and will save none unasked."""
    run = pretrain(workspace, "long", **LONG)
    wait_until(lambda: run.metrics.exists(), what="a step")
    runs.checkpoint_now(run)
    wait_until(lambda: run.state().last_checkpoint is not None, what="a checkpoint")
    return run


def allow_files_of(size: int, run: RunDir) -> None:
    """Let the run's worker write no file beyond `size` bytes: to it, a disk that is full."""
    pid = run.state().pid
    assert pid is not None
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, size))


def the_last_checkpoint_is_whole(run: RunDir) -> bool:
    last, refused = latest_verified(run)
    return last is not None and not refused and [p.name for p in run.checkpoints.iterdir()] == [last.name]


def test_a_checkpoint_that_cannot_be_written_ends_the_run_in_a_sentence(workspace: Workspace) -> None:
    run = with_a_checkpoint(workspace)
    weights = (list_checkpoints(run)[0].path / "model.safetensors").stat().st_size
    allow_files_of(weights + 1_000, run)  # enough for the weights, too little for the moments
    runs.checkpoint_now(run)
    wait_until(lambda: not run.alive(), what="the failure")
    assert run.status() == "failed"
    error = run.state().error
    assert error is not None
    assert f"The disk that holds {run.checkpoints}" in error.message
    assert "ulimit" in error.hint
    assert "Traceback" not in run.log.read_text()
    assert the_last_checkpoint_is_whole(run)
    runs.start(run)
    wait_until(lambda: run.state().status == "running" and run.state().step > 0, what="resuming")
    runs.stop(run)
    wait_until(lambda: not run.alive(), what="the stop")
    assert run.status() == "stopped"


def test_a_run_that_can_write_nothing_at_all_reads_as_lost_and_can_be_resumed(workspace: Workspace) -> None:
    run = with_a_checkpoint(workspace)
    allow_files_of(1, run)
    wait_until(lambda: not run.alive(), what="the end")
    assert run.status() == "lost"
    assert run.state().last_checkpoint is not None
    assert the_last_checkpoint_is_whole(run)
    assert all(json.loads(line) for line in run.metrics.read_bytes().splitlines(keepends=True) if line.endswith(b"\n"))
    runs.start(run)
    wait_until(lambda: b"rewind_to" in run.metrics.read_bytes(), what="resuming")
    runs.stop(run)
    wait_until(lambda: not run.alive(), what="the stop")
    assert run.status() == "stopped"
    assert all(json.loads(line) for line in run.metrics.read_bytes().splitlines())


def test_a_loss_that_is_no_number_is_noticed_at_once_and_never_kept(workspace: Workspace) -> None:
    run = with_a_checkpoint(workspace)
    runs.stop(run)
    wait_until(lambda: not run.alive(), what="the stop")
    last = list_checkpoints(run)[-1]
    weights = load_file(last.path / "model.safetensors")
    weights["transformer.wte.weight"][:] = float("nan")
    save_file(weights, last.path / "model.safetensors", metadata={"format": "pt"})
    (last.path / "manifest.json").unlink()
    write_manifest(last.path)
    before = list_checkpoints(run)
    runs.start(run)
    wait_until(lambda: not run.alive(), what="the failure")
    error = run.state().error
    assert run.status() == "failed"
    assert error is not None
    assert error.message == f"The loss became nan at step {last.step + 1}."
    assert "Resume" in error.hint
    assert list_checkpoints(run) == before
    assert b"null" not in run.metrics.read_bytes()


def test_an_update_that_ruins_the_model_is_not_kept(workspace: Workspace) -> None:
    finished = finish(pretrain(workspace, "one", steps=6))
    before = list_checkpoints(finished)
    again = Run(finished.path)
    job = prepare(again, again.settings(Pretrain), NextToken)
    job.step()
    job.opened.optimizer.compute.fill_(float("nan"))
    with pytest.raises(WorkFailed, match="validation loss became nan at step 7"):
        job.course.save(job)
    assert list_checkpoints(finished) == before


def test_a_run_killed_after_its_last_checkpoint_still_tells_what_it_reached(workspace: Workspace) -> None:
    run = finish(pretrain(workspace, "one"))
    reached = run.state().result
    assert reached["val/loss"] > 0
    state = run.state()
    state.status = "running"  # as a kill between the last checkpoint and the last word leaves it
    run.write_state(state)
    assert run.status() == "lost"
    runs.start(run)
    assert finish(run).state().result == reached


def test_a_rate_that_is_none_is_refused_and_training_goes_on(workspace: Workspace) -> None:
    run = with_a_checkpoint(workspace)
    for nonsense in ("fast", -1.0, None, True):
        run.request("set", {"lr": nonsense})
    wait_until(lambda: run.events.read_bytes().count(b'"warning"') >= 1, what="the warning")
    step = run.state().step
    wait_until(lambda: run.state().step > step, what="more steps")
    assert not any(b'"set"' in row for row in run.events.read_bytes().splitlines())
    runs.stop(run)
    wait_until(lambda: not run.alive(), what="the stop")
    assert run.status() == "stopped"


def test_to_stop_outweighs_to_pause(tmp_path: Path) -> None:
    run, requests = RunDir(tmp_path), Requests(tmp_path / "control")
    assert requests.ending is None
    run.request("pause")
    requests.poll()
    assert requests.ending == "paused"
    run.request("stop")
    requests.poll()
    assert requests.ending == "stopped"


def test_a_rate_is_of_one_kind_of_work(workspace: Workspace) -> None:
    path = finish(pretrain(workspace, "one", steps=6)).path
    run = Run(path)
    for done in (0, 500_000):
        run._written = 0.0
        run.report(done, 10**6, unit="bytes", phase="encoding")
    assert run.state.rate is not None
    run._written = 0.0
    run.report(10**6 + 1, 2 * 10**6)
    assert run.state.rate is None
