"""A small workspace for reward models: a random model to start from, and answers of which the longer is preferred."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from stages.reward import Job, prepare
from stages.store.records import Message, PreferenceRecord
from stages.store.rundir import RunDir
from stages.store.workspace import Workspace
from tests.stages.data.test_preference_shards import preference_dataset
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
    "eval_prompts": 8,
    "checkpoint_every": 6,
    "device": "cpu",
    "precision": "fp32",
}


def liked(count: int, k: int = 4, seed: int = 0) -> list[PreferenceRecord]:
    """Sums with `k` answers; the more often an answer says yes the better, and two of them may tie."""
    dice = random.Random(seed)
    made = []
    for number in range(count):
        a, b = dice.randrange(10), dice.randrange(10)
        times = [dice.randrange(1, 5) for _ in range(k)]
        order = sorted(set(times), reverse=True)
        made.append(
            PreferenceRecord(
                messages=[Message("user", f"{a}+{b}")],
                completions=[" ".join(["yes"] * n + [str(number)]) for n in times],
                ranks=[order.index(n) + 1 for n in times],
                annotator="rule",
                source="hand",
            )
        )
    return made


def reward_workspace(folder: Path, *, context: int = 96) -> Workspace:
    """The imported model `base` and the dataset `likes`."""
    workspace = Workspace(folder / "ws").ensure()
    write_tiny_checkpoint(workspace.models / "base", context=context)
    preference_dataset(workspace.datasets / "likes", liked(96), val=liked(24, seed=1))
    return workspace


def train(workspace: Workspace, name: str, **settings: Any) -> RunDir:
    """Launch a small training of a reward model as a detached worker."""
    return runs.launch(workspace, "reward", name, SMALL | settings, dataset="likes", checkpoint="base")


def job_in(
    workspace: Workspace, name: str = "job", *, dataset: str = "likes", checkpoint: str = "base", **settings: Any
) -> Job:
    """The same, prepared in this process."""
    run = made_run(workspace, "reward", name, SMALL | settings, dataset=dataset, checkpoint=checkpoint)
    return prepare(run)
