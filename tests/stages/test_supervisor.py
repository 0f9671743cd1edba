"""Starting several processes of a run and telling why they ended, without starting any."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import msgspec
import pytest

from stages.run import Run
from stages.store.errors import UserError
from stages.store.rundir import RunError, RunSpec, create_run
from stages.store.workspace import Workspace
from stages.training import devices
from stages.training.devices import CPU, Device, choose_devices
from stages.training.ranks import ALONE, ATTEMPT, PROCESSES, Rank, my_rank
from stages.training.supervisor import _reason, wrapped

WORKER = ["python", "-m", "stages", "/a folder/run"]
ENVIRONMENT = {"PYTHONPATH": "/a folder"}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    workspace = Workspace(tmp_path / "ws").ensure()
    made = Run(create_run(workspace, RunSpec(stage="pretrain", name="mine", settings={})).path)
    for rank in range(3):
        made.dir.rank_lock(rank).touch()
    return made


def left(run: Run, rank: int, kind: str, message: str, when: int) -> None:
    path = run.dir.rank_failure(rank)
    path.write_bytes(msgspec.json.encode(RunError(kind, message, "a hint")))
    os.utime(path, (when, when))


def test_a_command_is_wrapped_word_by_word() -> None:
    words = wrapped(["srun", "--ntasks={gpus}", "{worker}"], WORKER, ENVIRONMENT, 4)
    assert words == ["srun", "--ntasks=4", "/usr/bin/env", "PYTHONPATH=/a folder", *WORKER]


def test_a_command_inside_a_longer_word_is_quoted_for_a_shell() -> None:
    ssh, box, line = wrapped(["ssh", "box", "cd / && {torchrun}"], WORKER, ENVIRONMENT, 2)
    assert (ssh, box) == ("ssh", "box")
    words = shlex.split(line)
    assert words[:5] == ["cd", "/", "&&", "/usr/bin/env", "PYTHONPATH=/a folder"]
    assert words[-4:] == WORKER
    assert "--nproc-per-node=2" in words


def test_a_command_that_starts_no_worker_is_refused() -> None:
    with pytest.raises(UserError, match="starts no worker"):
        wrapped(["srun", "hostname"], WORKER, ENVIRONMENT, 2)


def test_the_reason_is_what_the_first_that_failed_says(run: Run) -> None:
    left(run, 0, "LostProcess", "Another process of the run is gone.", 30)
    left(run, 1, "UserError", "The tokenizer is gone.", 20)
    left(run, 2, "WorkFailed", "Process 2 ran out of memory.", 10)
    reason = _reason(run, 3, 1)
    assert (reason.title, reason.hint) == ("Process 2 ran out of memory.", "a hint")
    assert type(reason).__name__ == "WorkFailed"


def test_a_process_that_leaves_no_reason_was_killed(run: Run) -> None:
    left(run, 0, "LostProcess", "Another process of the run is gone.", 30)
    assert "Processes 1 and 2 of 0 to 2 were killed" in _reason(run, 3, 1).title
    assert "Process 1 of 0 to 2 was killed" in _reason(run, 3, 1, {1}).title  # the others were ended for it
    left(run, 1, "LostProcess", "Another process of the run is gone.", 30)
    assert "Process 2 of 0 to 2 was killed" in _reason(run, 3, 1).title


def test_processes_that_never_began_are_told_so(run: Run) -> None:
    for lock in run.dir.rank_locks():
        lock.unlink()
    assert "None of the 3 processes began to work (exit status 127)" in _reason(run, 3, 127).title


def test_a_rank_is_read_from_who_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_PROCID", "3")
    assert my_rank() is ALONE  # a run of one process inside a job of the cluster
    for name, value in ((PROCESSES, "4"), (ATTEMPT, "now"), ("SLURM_LOCALID", "1"), ("SLURM_NTASKS", "4")):
        monkeypatch.setenv(name, value)
    assert my_rank() == Rank(3, 4, 1, "now")
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("RANK", "2"), ("LOCAL_RANK", "2"), ("WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)
    assert my_rank() == Rank(2, 4, 2, "now")
    monkeypatch.setenv(PROCESSES, "2")
    with pytest.raises(UserError, match="started 4 processes and the run wants 2"):
        my_rank()


def test_a_gpu_for_each_process_or_the_cpu_for_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    cards = [Device("cuda", f"GPU-{number}", "H200") for number in range(2)]
    monkeypatch.setattr(devices, "visible_gpus", lambda: cards)
    assert choose_devices("auto", 2) == cards
    assert choose_devices("cpu", 3) == [CPU]
    with pytest.raises(UserError, match="3 processes need 3 GPUs, and this machine has 2 GPUs"):
        choose_devices("auto", 3)
    monkeypatch.setattr(devices, "visible_gpus", list)
    assert choose_devices("auto", 3) == [CPU]
