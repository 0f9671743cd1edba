"""Moments at which a worker breaks off, to the step: WORKBENCH_TEST_MOMENT names one, `killed within a step:9`, say."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stages.optim import AdamW
from stages.run import Run
from stages.store import checkpoints

VARIABLE = "WORKBENCH_TEST_MOMENT"


def await_moment(moment: str) -> None:
    """Have this process break off at a moment that is yet to come."""
    name, _, step = moment.partition(":")
    MOMENTS[name](int(step))


def killed_between_steps(step: int) -> None:
    at_reports(lambda run, now: now >= step and die())


def killed_within_a_step(step: int) -> None:
    """After a part of the gradients of the step behind `step`, with more to come."""
    reached, gather = [0], AdamW.gather
    at_reports(lambda run, now: reached.append(now))

    def counted(self: AdamW, *, first: bool) -> None:
        gather(self, first=first)
        if reached[-1] >= step and not first:
            die()

    AdamW.gather = counted  # type: ignore[method-assign]  # in this process alone


def killed_while_a_checkpoint_is_written(step: int) -> None:
    """The first checkpoint from `step` on: with its files there, the last of them torn, and its manifest to come."""
    write = checkpoints.write_manifest

    def torn(folder: Path) -> None:
        found = re.search(r"step-(\d+)", folder.name)
        if found and int(found[1]) >= step:
            last = max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_mtime_ns)
            os.truncate(last, last.stat().st_size // 2)
            die()
        write(folder)

    checkpoints.write_manifest = torn


def paused(step: int) -> None:
    at_reports(lambda run, now: now == step and run.dir.request("pause"))


MOMENTS: dict[str, Callable[[int], None]] = {
    "killed between steps": killed_between_steps,
    "killed within a step": killed_within_a_step,
    "killed while a checkpoint is written": killed_while_a_checkpoint_is_written,
    "paused": paused,
}


def at_reports(do: Callable[[Run, int], object]) -> None:
    """Do something at every report of a step of training, before it is made."""
    report = Run.report

    def reporting(self: Run, step: int, *rest: Any, **more: Any) -> None:
        if not more:  # what is read and prepared has a unit or a phase of its own
            do(self, step)
        report(self, step, *rest, **more)

    Run.report = reporting  # type: ignore[method-assign]  # in this process alone


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
