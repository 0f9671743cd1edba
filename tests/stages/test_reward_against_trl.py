"""The loss of a reward model on pairs is that of TRL's RewardTrainer on the same tokens and weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl import RewardConfig, RewardTrainer

from stages.data.rankings import text_of
from stages.models.value import load_value_model
from stages.reward import Job
from stages.store.checkpoints import list_checkpoints
from tests.stages.data.test_preference_shards import asked, preference_dataset
from tests.stages.reward_helpers import job_in, reward_workspace

PROMPTS = 8


def trained(folder: Path, margin: str, centring: float) -> Job:
    """A job over pairs with scores that has made some steps, so that its scores differ."""
    workspace = reward_workspace(folder)
    pairs = [
        asked(f"{n}+{n}", [f"yes {n}", f"{n} no no"], [1, 2], [4.0, 1.0 + n / 8])
        if n % 2
        else asked(f"{n}+{n}", [f"{n} no no", f"yes {n}"], [2, 1], [1.0, 3.0 + n / 8])
        for n in range(PROMPTS)
    ]
    preference_dataset(workspace.datasets / "pairs", pairs)
    job = job_in(
        workspace, dataset="pairs", batch_size=PROMPTS, lr=1e-2, margin=margin, margin_scale=0.5, centring=centring
    )
    for _ in range(3):
        job.step()
    job.course.save(job)
    return job


@pytest.mark.parametrize(("margin", "centring"), [("none", 0.0), ("scores", 0.0), ("scores", 0.01), ("none", 0.3)])
def test_the_loss_on_pairs_is_trls(tmp_path: Path, margin: str, centring: float) -> None:
    job = trained(tmp_path, margin, centring)
    folder = list_checkpoints(job.run.dir)[-1].path
    data, batch = job.data.train, job.train.batch(np.arange(PROMPTS))
    better, worse = batch.pairs.better, batch.pairs.worse
    texts = [torch.from_numpy(text_of(data, int(number))) for number in (*better, *worse)]
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    tokens = pad_sequence(texts, batch_first=True, padding_value=model.config.pad_token_id)
    inputs = {"input_ids": tokens, "attention_mask": (tokens != model.config.pad_token_id).long()}
    if margin != "none":
        inputs["margin"] = torch.from_numpy(0.5 * batch.pairs.scores_apart)
        assert len(inputs["margin"].unique()) > 1
    arguments = RewardConfig(
        output_dir=str(tmp_path / "trl"),
        center_rewards_coefficient=centring or None,
        max_length=None,
        use_cpu=True,
        bf16=False,
        report_to=[],
    )
    chats = Dataset.from_list([{"chosen": "yes", "rejected": "no"}])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    theirs = RewardTrainer(model=model, args=arguments, train_dataset=chats, processing_class=tokenizer)
    theirs.model.eval()
    with torch.no_grad():
        wanted = theirs.compute_loss(theirs.model, inputs).item()
        job.model = load_value_model(folder)
        assert job.loss(batch).item() == pytest.approx(wanted, abs=1e-5)
    assert abs(wanted - np.log(2)) > 1e-3
