"""A small workspace for labelling: a random decoder and a random encoder to start from, and a dataset a task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from stages.classify import Job, prepare
from stages.data.tokenizer import save_tokenizer, train_tokenizer
from stages.models.decoder import new_decoder
from stages.models.encoder import new_encoder, save_encoder
from stages.models.hf import save_weights
from stages.store.architecture import ModelConfig
from stages.store.checkpoints import Lineage, write_checkpoint
from stages.store.rundir import RunDir
from stages.store.workspace import Workspace
from tests.stages.data.labels import TASKS, classes, labelled_dataset, tagged
from tests.stages.helpers import made_run
from workbench import runs

SMALL = {
    "steps": 24,
    "batch_size": 8,
    "warmup": 2,
    "threads": 1,
    "lr": 3e-3,
    "dropout": 0.1,
    "eval_every": 12,
    "checkpoint_every": 6,
    "device": "cpu",
    "precision": "fp32",
}
SHAPE: dict[str, Any] = {"layers": 1, "heads": 2, "width": 32, "context": 48}


def write_decoder(final: Path, **shape: Any) -> Path:
    """A random decoder whose tokens are the words of the datasets, and bytes."""
    texts = [" ".join(record.texts) for record in (*classes(200), *tagged(200))]
    tokenizer = train_tokenizer(texts, "bpe", 320, split_digits=True)

    def fill(folder: Path) -> None:
        config = ModelConfig(**(SHAPE | shape), vocab_size=tokenizer.get_vocab_size())
        save_weights(new_decoder(config, 0), folder)
        save_tokenizer(tokenizer, folder)
        _sign(folder, "pretrain")

    return write_checkpoint(final, fill).path


def write_encoder(final: Path) -> Path:
    """A random encoder with WordPiece."""
    texts = [" ".join(record.texts) for record in (*classes(200), *tagged(200))]
    tokenizer = train_tokenizer(texts, "wordpiece", 320, split_digits=True)
    config = ModelConfig(
        **SHAPE, family="bert", norm="post", types=2, activation="gelu", vocab_size=tokenizer.get_vocab_size()
    )

    def fill(folder: Path) -> None:
        save_tokenizer(tokenizer, folder)
        save_encoder(new_encoder(config, 0), folder, pad_id=0)
        _sign(folder, "bert")

    return write_checkpoint(final, fill).path


def _sign(folder: Path, stage: str) -> None:
    lineage = Lineage(stage=stage, run="r", name=folder.parent.name, step=0)
    (folder / "workbench.json").write_bytes(msgspec.json.encode(lineage))


def label_workspace(folder: Path) -> Workspace:
    """The imported models `decoder` and `encoder`, and a dataset of each task by its name."""
    workspace = Workspace(folder / "ws").ensure()
    write_decoder(workspace.models / "decoder")
    write_encoder(workspace.models / "encoder")
    for task, make in TASKS.items():
        labelled_dataset(workspace.datasets / task, make(160), val=make(40, seed=1))
    return workspace


def teach(
    workspace: Workspace, name: str, *, dataset: str = "classify", checkpoint: str = "decoder", **settings: Any
) -> RunDir:
    """Launch a small run as a detached worker."""
    return runs.launch(workspace, "classify", name, SMALL | settings, dataset=dataset, checkpoint=checkpoint)


def job_in(
    workspace: Workspace,
    name: str = "job",
    *,
    dataset: str = "classify",
    checkpoint: str = "decoder",
    **settings: Any,
) -> Job:
    """The same, prepared in this process."""
    run = made_run(workspace, "classify", name, SMALL | settings, dataset=dataset, checkpoint=checkpoint)
    return prepare(run)
