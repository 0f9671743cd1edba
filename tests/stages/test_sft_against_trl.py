"""The loss of instruction tuning is that of TRL's SFTTrainer on the same batch, and packing changes nothing in it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from stages.data.packing import Batch
from stages.models.loss import IGNORED
from stages.models.weights import WEIGHTS
from stages.sft import Job
from stages.store.checkpoints import write_manifest
from stages.store.workspace import Workspace
from tests.stages.sft_helpers import chat_workspace, job_in, sums


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The model's weights are made ten times larger, so that what a token attends to shows in the loss."""
    made = chat_workspace(tmp_path_factory.mktemp("trl"))
    base = made.models / "base"
    loud = {name: 10 * tensor if tensor.ndim > 1 else tensor for name, tensor in load_file(base / WEIGHTS).items()}
    save_file(loud, base / WEIGHTS, {"format": "pt"})
    (base / "manifest.json").unlink()
    write_manifest(base)
    return made


def trainer(job: Job, folder: Path, rows: int, **settings: Any) -> SFTTrainer:
    """TRL's trainer on the same model, template and conversations."""
    tokenizer = AutoTokenizer.from_pretrained(job.base)
    tokenizer.chat_template = job.template
    chats = [{"messages": [{"role": m.role, "content": m.content} for m in chat]} for chat in sums(rows)]
    arguments = SFTConfig(
        output_dir=str(folder),
        assistant_only_loss=True,
        max_length=96,
        per_device_train_batch_size=rows,
        use_cpu=True,
        bf16=False,
        report_to=[],
        dataset_num_proc=None,
        **settings,
    )
    model = AutoModelForCausalLM.from_pretrained(job.base, dtype=torch.float32, attn_implementation="sdpa")
    return SFTTrainer(model=model, args=arguments, train_dataset=Dataset.from_list(chats), processing_class=tokenizer)


def loss_of(theirs: SFTTrainer, inputs: dict[str, Any]) -> float:
    theirs.model.eval()
    with torch.no_grad():
        return float(theirs.compute_loss(theirs.model, dict(inputs)))


def ours(job: Job, tokens: np.ndarray, targets: np.ndarray, documents: np.ndarray | None) -> float:
    job.model.eval()
    with torch.no_grad():
        return float(job.loss(Batch(tokens, targets, documents, tokens.size)))


def test_padded_the_loss_is_that_of_trl(workspace: Workspace, tmp_path: Path) -> None:
    job = job_in(workspace, "padded", packing=False)
    theirs = trainer(job, tmp_path, 8)
    inputs = next(iter(theirs.get_train_dataloader()))
    mine = job.train.batch(np.arange(8), job.tokenizer.pad_id)
    assert sorted(map(sum, inputs["input_ids"].tolist())) == sorted(map(sum, mine.tokens.tolist()))
    assert ours(job, mine.tokens, mine.targets, None) == pytest.approx(loss_of(theirs, inputs), abs=1e-5)


def test_packed_the_loss_is_that_of_trl(workspace: Workspace, tmp_path: Path) -> None:
    """TRL packs by best-fit decreasing, lays rows end to end and restarts the positions, as we do."""
    job = job_in(workspace, "packed", packing=True)
    theirs = trainer(job, tmp_path, 8, packing=True)
    inputs = next(iter(theirs.get_train_dataloader()))
    assert inputs["input_ids"].shape[0] == 1 and "position_ids" in inputs
    tokens = inputs["input_ids"].numpy()
    starts = np.flatnonzero(inputs["position_ids"][0].numpy() == 0)
    targets = np.full_like(tokens, IGNORED)
    targets[0, :-1] = inputs["labels"][0, 1:].numpy()
    targets[0, starts[1:] - 1] = IGNORED
    mine = job.train.batch(job.train.order(0, len(job.train)), job.tokenizer.pad_id)
    assert mine.documents is not None
    known = {mine.tokens[0, a:b].tobytes(): mine.targets[0, a:b] for a, b in pairwise(mine.documents.tolist())}
    for start, end in pairwise([*starts.tolist(), tokens.shape[1]]):
        assert np.array_equal(known[tokens[0, start:end].tobytes()], targets[0, start:end])
    documents = np.array([*starts, tokens.shape[1]])
    assert ours(job, tokens, targets, documents) == pytest.approx(loss_of(theirs, inputs), abs=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_packed_gives_the_loss_of_padded_document_by_document(workspace: Workspace, precision: str) -> None:
    job = job_in(workspace, f"both-{precision}", precision=precision)
    tolerance = 1e-5 if precision == "fp32" else 2e-2
    rows = job.train.order(0, 6)
    packed = job.train.batch(rows, job.tokenizer.pad_id)
    assert packed.documents is not None and len(packed.documents) > 7
    alone, counts = [], []
    for start, end in pairwise(packed.documents.tolist()):
        tokens, targets = packed.tokens[:, start:end], packed.targets[:, start:end]
        only = np.full_like(packed.targets, IGNORED)
        only[:, start:end] = targets
        alone.append(ours(job, tokens, targets, None))
        counts.append(int((targets != IGNORED).sum()))
        assert ours(job, packed.tokens, only, packed.documents) == pytest.approx(alone[-1], abs=tolerance)
    whole = ours(job, packed.tokens, packed.targets, packed.documents)
    assert whole == pytest.approx(float(np.average(alone, weights=counts)), abs=tolerance)
    edges = packed.documents[[0, 2, *range(3, len(packed.documents))]]
    assert edges[1] <= 96  # the first two as if they were one: that must show
    assert abs(ours(job, packed.tokens, packed.targets, edges) - whole) > 0.03
