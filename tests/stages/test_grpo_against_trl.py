"""GRPO's loss, advantages and treatment of overlong completions are those of TRL on the same tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer
from trl.rewards import get_soft_overlong_punishment

from stages import grpo
from stages.grpo import advantages, grpo_loss, learnt_mask, overlong_punishment, token_weights
from stages.models.logprobs import token_logprobs
from stages.policies.rollouts import Rollouts
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


def some_end(job: grpo.Job) -> Rollouts:
    """Completions of four prompts, of which every other one comes to its end."""
    drawn, (end, *_) = job.policy.roll(4), job.policy.writer._stops
    said = [[*(ids[:-1] if row % 2 else ids[:3]), 5 if row % 2 else end] for row, ids in enumerate(drawn.completions)]
    return job.policy.writer.laid_out(drawn.asked, said, drawn.inputs.device)


def scored_by_theirs(theirs: GRPOTrainer, rollouts: Rollouts, rewards: NDArray[np.float32]) -> dict[str, Any]:
    """What TRL makes of these completions when they have these rewards: advantages, masks and the rest of a batch."""
    asked = [each.tokens for each in rollouts.asked]
    theirs._generate = lambda _: (asked, rollouts.completions, None, rollouts.texts, None, {}, None, None)
    theirs._calculate_rewards = lambda *_: torch.from_numpy(rewards)[:, None]
    theirs.model.eval()
    found: dict[str, Any] = theirs._generate_and_score_completions([{"prompt": each.text} for each in rollouts.asked])
    return found


@pytest.mark.parametrize(("spread", "scale"), [("group", True), ("batch", "batch"), ("none", False)])
def test_advantages_are_those_of_trl(workspace: Workspace, tmp_path: Path, spread: str, scale: bool | str) -> None:
    job = grpo.prepare(policy_run(workspace, "grpo", f"advantages-{spread}", dataset="even", group=4))
    rollouts = job.policy.roll(4)
    rewards = np.random.default_rng(1).normal(size=len(rollouts)).astype(np.float32)
    rewards[4:8] = 0.5  # a dead group
    theirs = scored_by_theirs(trainer(job, tmp_path, "grpo", scale_rewards=scale, beta=0.0), rollouts, rewards)
    found = advantages(rewards, 4, spread)
    assert found.tolist() == pytest.approx(theirs["advantages"].tolist(), abs=1e-5)
    assert np.abs(found).max() > 0.5 and not found[4:8].any()


@pytest.mark.parametrize(("kind", "normalise"), [("grpo", "sequence"), ("dapo", "token"), ("dr_grpo", "constant")])
def test_leaving_out_what_was_cut_short_is_that_of_trl(
    workspace: Workspace, tmp_path: Path, kind: str, normalise: str
) -> None:
    job = grpo.prepare(policy_run(workspace, "grpo", f"truncated-{kind}", dataset="even", group=4))
    rollouts = some_end(job)
    assert rollouts.ended == [True, False] * 8
    rewards = np.random.default_rng(2).normal(size=len(rollouts)).astype(np.float32)
    logprobs = token_logprobs(job.policy.model, rollouts.inputs, rollouts.targets)
    gains = torch.from_numpy(advantages(rewards, 4, "group"))
    losses = {}
    for name, mask in (("all", rollouts.mask), ("ended", learnt_mask(rollouts))):
        weights = token_weights(mask, normalise, job.settings.max_new_tokens)
        old = logprobs.detach()
        losses[name] = grpo_loss(logprobs, old, old, gains, weights, low=0.2, high=0.2, beta=0.0)[0]
    theirs = trainer(job, tmp_path, kind, beta=0.0, mask_truncated_completions=True)
    theirs.eos_token_ids = list(job.policy.writer._stops)
    wanted = theirs._compute_loss(theirs.model, scored_by_theirs(theirs, rollouts, rewards))
    assert losses["ended"].item() == pytest.approx(wanted.item(), abs=1e-5)
    assert abs(losses["all"].item() - wanted.item()) > 1e-3


def test_the_punishment_of_overlong_completions_is_that_of_the_formula_and_of_trl() -> None:
    lengths, longest, cache = np.arange(1, 25), 20, 8
    expected = [
        0.0 if length <= longest - cache else (longest - cache - length) / cache if length <= longest else -1.0
        for length in lengths.tolist()
    ]
    found = overlong_punishment(lengths, longest, cache).tolist()
    assert found == pytest.approx(expected, abs=1e-7) and min(found) == -1 and found.count(0) == longest - cache
    theirs = get_soft_overlong_punishment(longest, cache)
    assert found == pytest.approx(theirs([[1] * length for length in lengths.tolist()]), abs=1e-7)
    assert not overlong_punishment(lengths, longest, 0).any()
