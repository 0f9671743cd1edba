"""Making runs in tests: in this process, or as the detached workers they are."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stages.run import Run
from stages.store.checkpoints import resolve_checkpoint
from stages.store.datasets import find_dataset
from stages.store.rundir import Parent, RunDir, RunSpec, create_run
from stages.store.tokenizers import find_tokenizer
from stages.store.workspace import Workspace
from workbench import runs

TINY = {
    "layers": 2,
    "heads": 2,
    "width": 32,
    "context": 16,
    "steps": 24,
    "batch_size": 4,
    "warmup": 4,
    "threads": 1,
    "eval_every": 12,
    "eval_tokens": 256,
    "checkpoint_every": 6,
    "sample_every": 12,
    "sample_tokens": 8,
    "device": "cpu",
}
"""Settings of a pre-training that takes about a second."""


def build_small_world(folder: Path) -> Workspace:
    """A workspace with the dataset `rhymes` (one text, tail split) and the byte tokenizer `bytes`."""
    workspace = Workspace(folder / "ws").ensure()
    text = folder / "rhymes.txt"
    text.write_text("".join(f"{n} green bottles, {n * 7 % 13} brown ones.\n\n" for n in range(400)))
    finish(runs.launch(workspace, "build", "rhymes", {"sources": [str(text)], "split": "tail:0.2"}))
    finish(runs.launch(workspace, "tokenizer", "bytes", {"type": "byte"}, dataset="rhymes"))
    return workspace


def copy_of(workspace: Workspace, folder: Path) -> Workspace:
    """The same workspace elsewhere, to write in."""
    shutil.copytree(workspace.root, folder / "ws")
    return Workspace(folder / "ws")


def pretrain(workspace: Workspace, name: str, **settings: Any) -> RunDir:
    """Launch a tiny pre-training as a detached worker."""
    return runs.launch(workspace, "pretrain", name, TINY | settings, dataset="rhymes", tokenizer="bytes")


def wait_until(
    fact: Callable[[], bool], *, seconds: float = 120.0, what: str = "the fact", every: float = 0.02
) -> None:
    """Return once `fact()` holds; fail after a deadline."""
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(every)


def ended(run: RunDir) -> bool:
    return not run.alive() and run.state().status not in ("queued", "running")


def finish(run: RunDir, *, seconds: float = 180.0) -> RunDir:
    """Wait until the run has finished; fail with its log otherwise."""
    wait_until(lambda: not run.alive(), seconds=seconds, what=f"the end of {run.id}")
    assert run.status() == "finished", run.log.read_text()[-4_000:] + str(run.state().error)
    return run


def made_run(workspace: Workspace, stage: str, name: str, settings: dict[str, Any], **parents: str | None) -> Run:
    """A run for this process, yet to be prepared. parents: dataset, tokenizer, and by role the checkpoints."""
    pinned = {}
    for role, parent in parents.items():
        if role == "dataset" and parent:
            pinned[role] = Parent(parent, find_dataset(workspace, parent).info.digest)
        elif role == "tokenizer" and parent:
            pinned[role] = Parent(parent, find_tokenizer(workspace, parent).info.digest)
        elif parent:
            found = resolve_checkpoint(workspace, parent)
            pinned[role] = Parent(str(found.path), found.digest())
    spec = RunSpec(stage=stage, name=name, settings=settings, parents=pinned, threads=1)
    return Run(create_run(workspace, spec).path)
