"""Runs done one after another by the same processes, which import torch once.

`python -m tests.stages.side_by_side RANK SIZE RUN_DIR…`: as many of these as SIZE. Runs of one process are shared out
among them.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from stages.run import Run
from stages.store.rundir import RunDir
from stages.store.workspace import installation_root
from stages.training.ranks import ALONE, Rank
from tests.stages.helpers import wait_until


def do_side_by_side(runs: Sequence[RunDir], processes: int, log: Path) -> None:
    """Do these runs, none of which has a worker, in so many processes. All must come to their end."""
    paths = [str(run.path) for run in runs]
    with log.open("ab") as stream:
        workers = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.stages.side_by_side", str(rank), str(processes), *paths],
                cwd=installation_root(),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )
            for rank in range(processes)
        ]
    try:
        wait_until(lambda: ended(workers), seconds=600, what="the runs")
        assert not any(worker.returncode for worker in workers), log.read_text()[-4_000:]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def ended(workers: Sequence[subprocess.Popen[bytes]]) -> bool:
    """Whether all have, or one in failure."""
    codes = [worker.poll() for worker in workers]
    return None not in codes or any(codes)


def main(rank: int, size: int, paths: Sequence[str]) -> None:
    distributed = importlib.import_module("stages.training.distributed")
    for number, path in enumerate(paths):
        together = RunDir(Path(path)).spec().settings["gpus"] > 1
        if not together and number % size != rank:
            continue
        run = Run(Path(path), Rank(rank, size, rank, "1") if together else ALONE)
        result = importlib.import_module(f"stages.{run.spec.stage}").run(run)
        if together:
            distributed.leave()
        run.set_status("finished", result=result)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
