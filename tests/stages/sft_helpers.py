"""A small workspace for instruction tuning: a random model to start from, and conversations about sums."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from stages.sft import Job, prepare
from stages.store.records import Message
from stages.store.rundir import RunDir
from stages.store.workspace import Workspace
from tests.stages.data.chats import chat_dataset
from tests.stages.helpers import made_run
from tests.tiny_model import write_tiny_checkpoint
from workbench import runs

SMALL = {
    "steps": 24,
    "batch_size": 4,
    "warmup": 2,
    "threads": 1,
    "lr": 3e-3,
    "eval_every": 12,
    "checkpoint_every": 6,
    "sample_every": 12,
    "sample_tokens": 8,
    "probes": False,
    "sample_prompts": ["1+1"],
    "device": "cpu",
    "precision": "fp32",
}


def sums(count: int, seed: int = 0) -> list[list[Message]]:
    """Conversations of one to three turns."""
    dice = random.Random(seed)
    made = []
    for _ in range(count):
        turns = []
        for _ in range(dice.choice((1, 1, 2))):
            a, b = dice.randrange(10), dice.randrange(10)
            turns += [Message("user", f"{a}+{b}"), Message("assistant", f"{a + b}")]
        made.append(turns)
    return made


def chat_workspace(folder: Path, *, context: int = 96) -> Workspace:
    """The imported model `base` and the dataset `sums`."""
    workspace = Workspace(folder / "ws").ensure()
    write_tiny_checkpoint(workspace.models / "base", context=context)
    chat_dataset(workspace.datasets / "sums", sums(120), val=sums(24, seed=1))
    return workspace


def tune(workspace: Workspace, name: str, **settings: Any) -> RunDir:
    """Launch a small instruction tuning as a detached worker."""
    return runs.launch(workspace, "sft", name, SMALL | settings, dataset="sums", checkpoint="base")


def job_in(
    workspace: Workspace, name: str = "job", *, dataset: str = "sums", checkpoint: str = "base", **settings: Any
) -> Job:
    """The same, prepared in this process."""
    run = made_run(workspace, "sft", name, SMALL | settings, dataset=dataset, checkpoint=checkpoint)
    return prepare(run)
