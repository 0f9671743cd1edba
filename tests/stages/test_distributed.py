"""Several processes that train one model, on the CPU with gloo: as detached runs that torchrun or srun starts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from stages.store.checkpoints import list_checkpoints
from stages.store.errors import UserError
from stages.store.rundir import Holder, RunDir
from stages.store.workspace import Workspace
from tests.stages import helpers
from tests.stages.helpers import copy_of, pretrain, wait_until
from workbench import runs

FAKE_SRUN = Path(__file__).with_name("fake_srun.py")
SETTINGS: dict[str, Any] = {
    "precision": "fp32",
    "steps": 30,
    "lr": 1e-3,
    "micro_batch": 1,
    "checkpoint_every": 3,
    "eval_every": 30,
    "sample_every": 30,
}
"""A training that several processes do as one does: without dropout, whose random numbers are a process's own. It saves
so often that there is time to break it off."""
CLOSE = 1e-5


@pytest.fixture
def workspace(small_world: Workspace, tmp_path: Path) -> Workspace:
    return copy_of(small_world, tmp_path)


@pytest.fixture
def by_srun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings that start processes by a fake srun; where it records its arguments."""
    record, folder = tmp_path / "srun.json", tmp_path / "settings"
    folder.mkdir()
    command = [sys.executable, str(FAKE_SRUN), str(record), "--ntasks={gpus}", "--export=NONE", "{worker}"]
    (folder / "workbench.toml").write_text(f"[launch]\ncommand = {json.dumps(command)}\n")
    monkeypatch.chdir(folder)
    return record


def finish(run: RunDir) -> RunDir:
    """Several processes import torch several times, which takes long on a busy machine."""
    return helpers.finish(run, seconds=600)


def rows(run: RunDir) -> dict[int, dict[str, Any]]:
    """Rows of metrics by step, those that were rewound left out."""
    kept: dict[int, dict[str, Any]] = {}
    for line in run.metrics.read_bytes().splitlines() if run.metrics.exists() else []:
        row = json.loads(line)
        if "rewind_to" in row:
            kept = {step: old for step, old in kept.items() if step <= row["rewind_to"]}
        else:
            kept.setdefault(row["step"], {}).update(row)
    return kept


def losses(run: RunDir) -> list[float]:
    return [row["train/loss"] for _, row in sorted(rows(run).items())]


def same_training(run: RunDir, other: RunDir) -> None:
    assert losses(run) == pytest.approx(losses(other), rel=0, abs=CLOSE)
    last, theirs = rows(run)[SETTINGS["steps"]], rows(other)[SETTINGS["steps"]]
    for key in ("val/loss", "grad_norm", "lr", "tokens"):
        assert last[key] == pytest.approx(theirs[key], rel=1e-4), key


def bits(run: RunDir) -> dict[str, bytes]:
    """Weights and all files of the last checkpoint that resuming needs."""
    last = list_checkpoints(run)[-1].path
    files = [last / "model.safetensors", *sorted((last / "resume").iterdir())]
    return {path.name: path.read_bytes() for path in files}


def holder(run: RunDir, rank: int) -> psutil.Process:
    return psutil.Process(msgspec.json.decode(run.rank_lock(rank).read_bytes(), type=Holder).pid)


def elsewhere(run: RunDir, folder: Path) -> RunDir:
    """The same run in a copy of its workspace."""
    shutil.copytree(run.path.parent.parent, folder / "ws")
    return RunDir(folder / "ws" / "runs" / run.path.name)


def break_off(run: RunDir, rank: int) -> None:
    """Kill one process behind a checkpoint, and see that the run fails cleanly: a sentence, and nobody left."""
    wait_until(lambda: bool(list_checkpoints(run)) or not run.alive(), seconds=400, what="a checkpoint")
    assert run.state().status == "running", run.log.read_text()[-4_000:]
    processes = [holder(run, number) for number in (0, 1)]
    processes[rank].send_signal(signal.SIGKILL)
    wait_until(lambda: not run.alive(), seconds=200, what="the end of a broken run")
    assert not any(process.is_running() and process.status() != "zombie" for process in processes)
    state = run.state()
    assert state.status == "failed"
    assert state.error is not None
    assert state.error.message == f"Process {rank} of 0 to 1 was killed; the others were ended."
    assert "Resume" in state.error.hint


def test_two_processes_train_as_one_and_go_on_after_one_is_killed(
    workspace: Workspace, tmp_path: Path, by_srun: Path
) -> None:
    one = finish(pretrain(workspace, "one", **SETTINGS))
    run = pretrain(workspace, "two", gpus=2, **SETTINGS)
    break_off(run, 1)
    words = json.loads(by_srun.read_text())
    assert words[:2] == ["--ntasks=2", "--export=NONE"]
    assert words[-5:] == [sys.executable, "-P", "-m", "stages", str(run.path)]
    last = list_checkpoints(run)[-1]
    assert last.step in range(3, 30, 3)
    index = json.loads((last.path / "resume" / "index.json").read_bytes())
    assert index["files"] == ["rank-00000-of-00002.safetensors", "rank-00001-of-00002.safetensors"]
    copy = elsewhere(run, tmp_path / "copy")

    runs.start(copy, gpus=1)
    finish(copy)
    same_training(copy, one)
    assert "optimizer.safetensors" in bits(copy)

    (tmp_path / "settings" / "workbench.toml").unlink()
    runs.start(run)  # by torchrun now
    finish(run)
    assert "torch.distributed.run" in run.log.read_text()
    same_training(run, one)
    moments = load_file(list_checkpoints(run)[-1].path / "resume" / "rank-00001-of-00002.safetensors")
    assert moments["updates"].item() == SETTINGS["steps"]
    assert AutoModelForCausalLM.from_pretrained(list_checkpoints(run)[-1].path).num_parameters() > 0
    assert len(run.samples.read_bytes().splitlines()) == len(one.samples.read_bytes().splitlines())


@pytest.mark.soak
@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_resuming_is_bit_exact_on_as_many_processes_and_close_on_others(
    workspace: Workspace, tmp_path: Path, sharding: str
) -> None:
    settings = SETTINGS | {"sharding": sharding, "batch_size": 6}
    one = finish(pretrain(workspace, "one", **settings))
    whole = finish(pretrain(workspace, "whole", gpus=2, **settings))
    run = pretrain(workspace, "two", gpus=2, **settings)
    break_off(run, 0)
    for processes in (1, 3):
        copy = elsewhere(run, tmp_path / f"copy-{processes}")
        runs.start(copy, gpus=processes)
        finish(copy)
        same_training(copy, one)
    runs.start(run)
    finish(run)
    assert bits(run) == bits(whole)
    assert losses(run) == losses(whole)
    same_training(run, one)


@pytest.mark.soak
@pytest.mark.parametrize("stage", ["pretrain", "transformer_xl", "bert"])
def test_each_process_goes_on_with_its_own_random_numbers(workspace: Workspace, stage: str) -> None:
    def train(name: str) -> RunDir:
        settings = helpers.TINY | SETTINGS | {"dropout": 0.1, "gpus": 2, "context": 32}
        return runs.launch(workspace, stage, name, settings, dataset="rhymes", tokenizer="words")

    finish(runs.launch(workspace, "tokenizer", "words", {"type": "wordpiece", "vocab_size": 300}, dataset="rhymes"))
    whole, run = finish(train("whole")), train("broken")
    break_off(run, 1)
    runs.start(run)
    assert bits(finish(run)) == bits(whole)
    assert losses(run) == losses(whole)


@pytest.mark.soak
def test_processes_whose_starter_is_killed_are_ended_too(workspace: Workspace) -> None:
    run = pretrain(workspace, "long", gpus=2, **SETTINGS | {"steps": 100_000})
    wait_until(lambda: bool(list_checkpoints(run)) or not run.alive(), seconds=400, what="a checkpoint")
    processes = [holder(run, number) for number in (0, 1)]
    torchrun = processes[0].parent()
    assert torchrun is not None and "torch.distributed.run" in torchrun.cmdline()
    torchrun.kill()
    wait_until(lambda: not run.alive(), seconds=200, what="the end of a broken run")
    assert not any(process.is_running() and process.status() != "zombie" for process in processes)
    error = run.state().error
    assert error is not None and "ended together" in error.message


@pytest.mark.soak
def test_all_processes_act_on_a_request_at_the_same_step(workspace: Workspace) -> None:
    settings = SETTINGS | {"steps": 100_000, "checkpoint_every": 100_000, "eval_every": 100_000, "warmup": 0}
    run = pretrain(workspace, "long", gpus=2, dropout=0.1, **settings)
    wait_until(lambda: len(rows(run)) > 3, what="a few steps")
    runs.set_lr(run, 1e-5)
    wait_until(lambda: rows(run)[max(rows(run))]["lr"] < 2e-5, what="the new rate")
    runs.checkpoint_now(run)
    wait_until(lambda: bool(list_checkpoints(run)), seconds=400, what="a checkpoint")
    runs.pause(run)
    wait_until(lambda: not run.alive(), what="the pause")
    assert run.status() == "paused"
    assert list_checkpoints(run)[-1].step == run.state().step
    runs.start(run)
    wait_until(lambda: run.state().status == "running" and run.state().pid == holder(run, 0).pid, what="resuming")
    os.kill(holder(run, 0).pid, signal.SIGTERM)
    wait_until(lambda: not run.alive(), what="the stop")
    assert run.status() == "stopped"


def test_what_cannot_be_shared_is_refused_in_a_sentence(workspace: Workspace) -> None:
    with pytest.raises(UserError, match="batch_size of 4 cannot be shared evenly by 3 processes"):
        pretrain(workspace, "uneven", gpus=3)
    with pytest.raises(UserError, match="sample is done by one process, not by 2"):
        runs.refuse_gpus("sample", 2)
