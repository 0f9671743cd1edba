"""What a memory is worth on a real text: Transformer-XL against the same model without one, and the plain decoder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stages.store.checkpoints import list_checkpoints
from stages.store.workspace import Workspace
from tests.stages.helpers import finish
from workbench import runs

TEXT = Path(os.environ.get("WORKBENCH_TEST_DATA", "")) / "tinyshakespeare" / "input.txt"
SEGMENT = 32
SHARED = {
    "layers": 3,
    "heads": 4,
    "width": 96,
    "context": SEGMENT,
    "batch_size": 16,
    "steps": 800,
    "eval_every": 800,
    "checkpoint_every": 800,
    "sample_every": 0,
    "lr": 2e-3,
    "precision": "fp32",
    "device": "cpu",
}
MODELS = {
    "plain decoder": ("pretrain", {"preset": "tiny"}),
    "no memory": ("transformer_xl", {"memory": 0}),
    "memory 64": ("transformer_xl", {"memory": 64}),
}

pytestmark = [
    pytest.mark.bench,
    pytest.mark.skipif(not TEXT.is_file(), reason="WORKBENCH_TEST_DATA is not set"),
]


def test_at_equal_segment_length_a_memory_lowers_the_validation_loss(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = Workspace(tmp_path / "ws").ensure()
    finish(runs.launch(workspace, "build", "plays", {"sources": [str(TEXT)], "split": "tail:0.1"}))
    finish(runs.launch(workspace, "tokenizer", "bytes", {"type": "byte"}, dataset="plays"))
    losses = {}
    for number, (title, (stage, own)) in enumerate(MODELS.items()):
        settings = SHARED | own
        run = runs.launch(workspace, stage, f"run{number}", settings, dataset="plays", tokenizer="bytes")
        lineage = list_checkpoints(finish(run, seconds=1_800))[-1].lineage()
        assert lineage is not None
        losses[title] = lineage.metrics["val/loss"]
        with capsys.disabled():
            print(f"\n{title}: {losses[title]:.4f} nats a byte at segments of {SEGMENT}")
    assert losses["memory 64"] < losses["no memory"]
    assert losses["memory 64"] < losses["plain decoder"]
