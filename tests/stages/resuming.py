"""Runs that are cut off and go on: what they wrote, how they are killed, and whether they end with the same bits."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from stages.run import Run
from stages.store.checkpoints import list_checkpoints, write_manifest
from stages.store.rundir import RunDir
from tests.stages.helpers import ended, finish, wait_until
from workbench import runs


def rows(path: Path) -> list[dict[str, Any]]:
    """The rows that count: those not rewound."""
    kept: list[dict[str, Any]] = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        row = json.loads(line)
        if "rewind_to" in row:
            kept = [old for old in kept if old["step"] <= row["rewind_to"]]
        else:
            kept.append(row)
    return kept


def losses(run: RunDir) -> list[tuple[int, float]]:
    """The training loss by step."""
    return [(row["step"], row["train/loss"]) for row in rows(run.metrics) if "train/loss" in row]


def events(run: RunDir, kind: str) -> list[dict[str, Any]]:
    """The events of a kind."""
    return [row for line in run.events.read_bytes().splitlines() if (row := json.loads(line))["event"] == kind]


def bits(run: RunDir) -> dict[str, bytes]:
    """Weights and optimiser of the last checkpoint."""
    last = list_checkpoints(run)[-1].path
    return {name: (last / name).read_bytes() for name in ("model.safetensors", "resume/optimizer.safetensors")}


def kill(run: RunDir) -> None:
    """End the worker as no worker can prevent."""
    pid = run.state().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not run.alive(), what="death")


def killed_and_gone_on(launch: Callable[[str], RunDir], *, steps: int, checkpoints: int = 1) -> tuple[RunDir, RunDir]:
    """A run that was left alone, and one that was killed once it had checkpoints and then went on to its end."""
    whole, broken = finish(launch("whole")), launch("broken")
    wait_until(lambda: len(list_checkpoints(broken)) >= checkpoints or ended(broken), what="a checkpoint")
    kill(broken)
    assert 0 < list_checkpoints(broken)[-1].step < steps and broken.status() == "lost"
    runs.start(broken)
    return whole, finish(broken)


def cut_off(run: RunDir) -> RunDir:
    """Kill a run once it has a checkpoint, if it has not ended before, and have it go on to its end."""
    wait_until(lambda: bool(list_checkpoints(run)), what="a checkpoint")
    pid = run.state().pid
    if pid is not None and run.alive():
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not run.alive(), what="death")
    if run.status() != "finished":
        runs.start(run)
        finish(run)
    return run


def gone_on(whole: Any, broken: Any, prepare: Callable[[Run], Any], first: int, then: int, lost: str | None) -> Any:
    """`broken`, prepared anew after its `first` steps, `then` steps later.

    It must be at every bit of the loss and the weights where `whole` is; and must not, where a part is `lost` between.
    """
    torch.manual_seed(0)
    losses = [whole.step() for _ in range(first + then)]
    torch.manual_seed(0)
    made = [broken.step() for _ in range(first)]
    broken.course.save(broken)
    broken.step()  # lost with the process
    if lost:
        forget(list_checkpoints(broken.run.dir)[-1].path, lost)
    again = prepare(Run(broken.run.dir.path))
    assert again.progress.step == first
    assert (made + [again.step() for _ in range(then)] == losses) == (lost is None)
    assert torch.equal(again.opened.optimizer.master, whole.opened.optimizer.master) == (lost is None)
    return again


def forget(checkpoint: Path, part: str) -> None:
    """Put something else in place of a part of what resuming needs."""
    file = checkpoint / "resume" / f"{part}.safetensors"
    save_file({name: _other(tensor) for name, tensor in load_file(file).items()}, file)
    (checkpoint / "manifest.json").unlink()
    write_manifest(checkpoint)


def _other(tensor: Tensor) -> Tensor:
    return torch.Generator().manual_seed(12345).get_state() if tensor.dtype == torch.uint8 else tensor * 0
