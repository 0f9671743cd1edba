"""A small workspace for policies: a random model, prompts about sums with their answers, and a reward model."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from stages.data.records import RecordWriter
from stages.models.opening import open_decoder
from stages.models.value import new_value_model, save_value_model
from stages.run import Run
from stages.store import strict
from stages.store.checkpoints import resolve_checkpoint, write_checkpoint
from stages.store.datasets import Dataset, DatasetInfo, Kind, find_dataset
from stages.store.records import Message, PromptRecord, Record, TextRecord
from stages.store.rundir import Parent, RunSpec, create_run
from stages.store.specs import spec_of
from stages.store.workspace import Workspace
from tests.tiny_model import write_tiny_checkpoint

SMALL = {
    "steps": 6,
    "batch_size": 4,
    "max_new_tokens": 6,
    "warmup": 0,
    "lr": 3e-3,
    "threads": 1,
    "eval_every": 3,
    "eval_prompts": 4,
    "checkpoint_every": 2,
    "sample_every": 3,
    "sample_tokens": 4,
    "sample_prompts": ["1+1"],
    "probes": False,
    "device": "cpu",
    "precision": "fp32",
    "reward": "pattern",
    "reward_pattern": "[0-9]",
    "pause_on_alarm": False,
}
"""Settings of either stage that make a run of about a second."""


def prompt_dataset(folder: Path, train: Sequence[tuple[str, str]], val: Sequence[tuple[str, str]] = ()) -> Dataset:
    """A dataset of kind prompts in `folder`, which carries its name, of questions with their answers."""

    def record(question: str, answer: str) -> PromptRecord:
        return PromptRecord(messages=[Message("user", question)], answer=answer or None, source="sums")

    return _dataset(folder, "prompts", {"train": [record(*row) for row in train], "val": [record(*row) for row in val]})


def text_dataset(folder: Path, texts: Sequence[str]) -> Dataset:
    """A dataset of kind text in `folder`, all of it to train on."""
    return _dataset(folder, "text", {"train": [TextRecord(text=text) for text in texts], "val": []})


def _dataset(folder: Path, kind: Kind, splits: dict[str, Sequence[Record]]) -> Dataset:
    digests, counts, sizes = [], {}, {}
    for split, records in splits.items():
        with RecordWriter(folder / "records", split, kind) as writer:
            for record in records:
                writer.write(record)
        digests.append(writer.digest())
        counts[split], sizes[split] = writer.records, writer.bytes
    info = DatasetInfo(
        name=folder.name, kind=kind, digest="".join(digests)[::2], records=counts, bytes=sizes, characters=sizes
    )
    (folder / "dataset.json").write_bytes(msgspec.json.encode(info))
    return Dataset(folder, info)


def sums(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Questions such as 3+4 with their answers."""
    dice = random.Random(seed)
    pairs = [(dice.randrange(50), dice.randrange(50)) for _ in range(count)]
    return [(f"{a}+{b}", str(a + b)) for a, b in pairs]


def policy_workspace(folder: Path, *, context: int = 96) -> Workspace:
    """The models `base` and `judge`, a reward model, and the dataset `sums` of prompts."""
    workspace = Workspace(folder / "ws").ensure()
    base = write_tiny_checkpoint(workspace.models / "base", context=context)
    write_reward_model(workspace.models / "judge", base)
    prompt_dataset(workspace.datasets / "sums", sums(40), val=sums(8, seed=1))
    return workspace


def write_reward_model(final: Path, base: Path) -> Path:
    """A reward model with the tokenizer of `base` and a random head."""

    def fill(folder: Path) -> None:
        save_value_model(new_value_model(open_decoder(base), seed=3), folder, pad_id=1)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).write_bytes((base / name).read_bytes())

    return write_checkpoint(final, fill).path


def policy_run(
    workspace: Workspace,
    stage: str,
    name: str,
    *,
    checkpoint: str = "base",
    extra: dict[str, str] | None = None,
    texts: dict[str, str] | None = None,
    dataset: str = "sums",
    **settings: Any,
) -> Run:
    """A run of grpo or ppo in this process, yet to be prepared. extra, texts: further models and datasets, by role."""
    parents = {}
    for role, parent in {"checkpoint": checkpoint, **(extra or {})}.items():
        found = resolve_checkpoint(workspace, parent)
        parents[role] = Parent(str(found.path), found.digest())
    for role, parent in {"dataset": dataset, **(texts or {})}.items():
        parents[role] = Parent(parent, find_dataset(workspace, parent).info.digest)
    every = msgspec.to_builtins(strict.parse(spec_of(stage), SMALL | settings, "settings"))
    spec = RunSpec(stage=stage, name=name, settings=every, parents=parents, threads=1)
    return Run(create_run(workspace, spec).path)
