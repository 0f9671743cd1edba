"""PPO's first update equals a slow, plain implementation with transformers' models, one token at a time, in float64."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from stages import ppo
from stages.policies.rollouts import Rollouts
from stages.store.checkpoints import list_checkpoints
from stages.store.rewards import FILE, Scale
from stages.store.workspace import Workspace
from tests.stages.policy_helpers import policy_run, policy_workspace
from tests.tiny_model import write_tiny_checkpoint

SETTINGS = {
    "batch_size": 12,
    "max_new_tokens": 24,
    "passes": 1,
    "lr": 1e-3,
    "reward": "model",
    "kl": 0.3,
    "gamma": 0.97,
    "gae_lambda": 0.9,
}

SCALE = Scale(mean=0.4, std=1.7, samples=100)
"""Of the reward model: rewards and values are its normalised scores."""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = policy_workspace(tmp_path_factory.mktemp("plain"))
    write_tiny_checkpoint(made.models / "other", context=96, seed=5)
    (made.models / "judge" / FILE).write_bytes(msgspec.json.encode(SCALE))
    return made


def said(rollouts: Rollouts) -> list[tuple[list[int], int]]:
    """All tokens of each completion, and how many of them are its prompt."""
    pairs = zip(rollouts.asked, rollouts.completions, strict=True)
    return [([*asked.tokens, *ids], len(asked.tokens)) for asked, ids in pairs]


def logprobs(model: Any, ids: list[int], start: int) -> list[Tensor]:
    """log p of each token of a completion."""
    logits = model(torch.tensor([ids])).logits[0].double()
    return [logits[t - 1].log_softmax(-1)[ids[t]] for t in range(start, len(ids))]


def values(model: Any, ids: list[int], start: int) -> list[Tensor]:
    """The value before each token of a completion."""
    hidden = model.transformer(torch.tensor([ids])).last_hidden_state
    return [SCALE.normal(model.score(hidden)[0, t - 1, 0]) for t in range(start, len(ids))]


def plain_update(workspace: Workspace, rollouts: Rollouts, penalty: float) -> tuple[Any, Any]:
    """The actor and the critic after one update on these rollouts."""
    models = workspace.models
    actor, reference = (AutoModelForCausalLM.from_pretrained(models / n).double().eval() for n in ("base", "other"))
    critic, judge = (AutoModelForSequenceClassification.from_pretrained(models / "judge").double().eval() for _ in "ab")
    coefficient, gamma, lam = (SETTINGS[name] for name in ("kl", "gamma", "gae_lambda"))
    rows = []
    for (ids, start), ended in zip(said(rollouts), rollouts.ended, strict=True):
        with torch.no_grad():
            old, theirs, guesses = (
                logprobs(actor, ids, start),
                logprobs(reference, ids, start),
                values(critic, ids, start),
            )
            score = SCALE.normal(float(judge.score(judge.transformer(torch.tensor([ids])).last_hidden_state)[0, -1, 0]))
        earned = [-coefficient * float(a - b) for a, b in zip(old, theirs, strict=True)]
        earned[-1] += score - (0.0 if ended else penalty)
        gains, ahead = [0.0] * len(earned), 0.0
        for t in reversed(range(len(earned))):
            after = float(guesses[t + 1]) if t + 1 < len(earned) else 0.0
            ahead = earned[t] + gamma * after - float(guesses[t]) + gamma * lam * ahead
            gains[t] = ahead
        rows.append((ids, start, old, guesses, gains))
    every = torch.tensor([gain for *_, gains in rows for gain in gains], dtype=torch.float64)
    losses = []
    for ids, start, old, guesses, gains in rows:
        now, new_guesses = logprobs(actor, ids, start), values(critic, ids, start)
        for t, gain in enumerate(gains):
            back = gain + float(guesses[t])
            gain = (gain - float(every.mean())) / math.sqrt(float(every.var()) + 1e-8)
            ratio = (now[t] - old[t]).exp()
            policy = -torch.minimum(ratio * gain, ratio.clamp(0.8, 1.2) * gain)
            near = guesses[t] + (new_guesses[t] - guesses[t]).clamp(-0.2, 0.2)
            value = torch.maximum((new_guesses[t] - back) ** 2, (near - back) ** 2) / 2
            losses.append(policy + 0.1 * value)
    (sum(losses) / len(losses)).backward()
    for model in (actor, critic):
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        torch.optim.AdamW(model.parameters(), lr=SETTINGS["lr"], betas=(0.9, 0.95), eps=1e-5, weight_decay=0.0).step()
    return actor, critic


def differences(folder: Path, model: Any, kind: Any) -> dict[str, float]:
    """The largest difference of each parameter."""
    found, wanted = kind.from_pretrained(folder).state_dict(), model.state_dict()
    return {name: float((found[name].double() - wanted[name]).abs().max()) for name in wanted}


@pytest.mark.parametrize("micro_batch", [None, 4])
def test_the_first_update_is_that_of_a_plain_implementation(workspace: Workspace, micro_batch: int | None) -> None:
    name = f"first-{micro_batch}"
    extra = {"reward": "judge", "reference": "other"}
    job = ppo.prepare(policy_run(workspace, "ppo", name, extra=extra, micro_batch=micro_batch, **SETTINGS))
    rollouts = job.policy.roll(12)
    assert len({len(ids) for ids in rollouts.completions}) > 1 and 0 < sum(rollouts.ended) < len(rollouts)
    job.policy.roll = lambda count: rollouts  # type: ignore[method-assign]
    row = job.step()
    assert row["policy/ratio_first"] == pytest.approx(1, abs=1e-6) and row["policy/kl"] != 0
    job.course.save()
    folder = list_checkpoints(job.course.run.dir)[-1].path
    actor, critic = plain_update(workspace, rollouts, job.settings.missing_end_penalty)
    before = AutoModelForCausalLM.from_pretrained(workspace.models / "base").double()
    moved = differences(folder, before, AutoModelForCausalLM)
    assert all(value > 2e-4 for name, value in moved.items() if "attn.bias" not in name)
    for place, model, kind in (
        (folder, actor, AutoModelForCausalLM),
        (folder / "value", critic, AutoModelForSequenceClassification),
    ):
        off = differences(place, model, kind)
        assert max(off.values()) < 1e-5, off
