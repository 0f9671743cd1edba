"""The loss of GRPO is that of TRL's GRPOTrainer on the same tensors, in every variant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from stages import grpo
from stages.grpo import advantages, grpo_loss, token_weights
from stages.models.logprobs import token_logprobs
from stages.store.workspace import Workspace
from tests.stages.policy_helpers import policy_run, policy_workspace, prompt_dataset

VARIANTS = [
    ("grpo", "sequence", "group", 0.2, 0.04, False),
    ("grpo", "sequence", "group", 0.2, 0.04, True),
    ("dr_grpo", "constant", "none", 0.2, 0.0, True),
    ("bnpo", "token", "batch", 0.28, 0.1, True),
    ("dapo", "token", "group", 0.28, 0.0, True),
]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Prompts of one length: TRL counts padding before a shorter one among the positions."""
    made = policy_workspace(tmp_path_factory.mktemp("trl"))
    prompt_dataset(made.datasets / "even", [(f"{n}+{99 - n}", "99") for n in range(10, 50)])
    return made


def trainer(job: grpo.Job, folder: Path, kind: str, **settings: Any) -> GRPOTrainer:
    base = job.course.base
    arguments = GRPOConfig(
        output_dir=str(folder),
        loss_type=kind,
        num_generations=4,
        per_device_train_batch_size=16,
        max_completion_length=job.settings.max_new_tokens,
        use_cpu=True,
        bf16=False,
        report_to=[],
        **settings,
    )
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return GRPOTrainer(
        model=model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": "1+1"}] * 16),
        processing_class=AutoTokenizer.from_pretrained(base),
    )


def as_theirs(job: grpo.Job, rollouts: Any, **more: Tensor) -> dict[str, Any]:
    """Prompts padded on the left, completions on the right, and figures of completions in their columns."""
    prompts, said = [asked.tokens for asked in rollouts.asked], rollouts.completions
    wide, long = max(map(len, prompts)), max(map(len, said))
    inputs = {
        "prompt_ids": torch.tensor([[0] * (wide - len(ids)) + ids for ids in prompts]),
        "prompt_mask": torch.tensor([[0] * (wide - len(ids)) + [1] * len(ids) for ids in prompts]),
        "completion_ids": torch.tensor([ids + [0] * (long - len(ids)) for ids in said]),
        "completion_mask": torch.tensor([[1] * len(ids) + [0] * (long - len(ids)) for ids in said]),
        "num_items_in_batch": torch.tensor(sum(map(len, said))),
    }
    for name, values in more.items():
        columns = torch.zeros(len(said), long)
        for row, ids in enumerate(said):
            start = len(prompts[row]) - 1
            columns[row, : len(ids)] = values[row, start : start + len(ids)]
        inputs[name] = columns
    return inputs


@pytest.mark.parametrize(("kind", "normalise", "spread", "high", "beta", "correct"), VARIANTS)
def test_the_loss_is_that_of_trl(
    workspace: Workspace,
    tmp_path: Path,
    kind: str,
    normalise: str,
    spread: str,
    high: float,
    beta: float,
    correct: bool,
) -> None:
    job = grpo.prepare(
        policy_run(
            workspace,
            "grpo",
            f"{kind}-{correct}",
            dataset="even",
            group=4,
            normalise=normalise,
            missing_end_penalty=0.5,
        )
    )
    rollouts = job.policy.roll(4)
    dice = np.random.default_rng(0)
    gains = advantages(dice.integers(0, 3, len(rollouts)).astype(np.float32), 4, spread)
    logprobs = token_logprobs(job.policy.model, rollouts.inputs, rollouts.targets)
    noise = torch.Generator().manual_seed(0)
    old, reference = (
        (logprobs.detach() + 0.3 * torch.randn(logprobs.shape, generator=noise)) * rollouts.mask for _ in range(2)
    )
    weights = token_weights(rollouts.mask, normalise, job.settings.max_new_tokens)
    found, _ = grpo_loss(
        logprobs, old, reference, torch.from_numpy(gains), weights, low=0.2, high=high, beta=beta, correct=correct
    )
    theirs = trainer(job, tmp_path, kind, beta=beta, epsilon=0.2, epsilon_high=high, use_bias_correction_kl=correct)
    inputs = as_theirs(job, rollouts, old_per_token_logps=old, ref_per_token_logps=reference)
    theirs.model.eval()
    wanted = theirs._compute_loss(theirs.model, inputs | {"advantages": torch.from_numpy(gains)})
    assert found.item() == pytest.approx(wanted.item(), abs=1e-5) and abs(wanted.item()) > 1e-3
    found.backward()
    wanted.backward()
    mine, other = job.policy.model.tokens.grad, theirs.model.transformer.wte.weight.grad
    torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)
