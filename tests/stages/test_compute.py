"""The compute that a run logs: the operations that torch counts in a step, and what each stage's is made up of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from stages import dpo
from stages.models.decoder import new_decoder
from stages.models.encoder import new_encoder
from stages.models.loss import IGNORED
from stages.models.t5 import new_t5
from stages.store import compute
from stages.store.architecture import ModelConfig
from stages.store.presets import load_preset
from tests.stages import policy_helpers, reward_helpers, sft_helpers, test_policy
from tests.stages.helpers import made_run

SIZES = {"layers": 2, "heads": 2, "width": 32, "context": 64, "vocab_size": 100, "dropout": 0.0}
B, T = 4, 64


def shape(preset: str, **more: Any) -> ModelConfig:
    return msgspec.structs.replace(load_preset(preset), **SIZES, **more)


def counted(step: Callable[[], Any]) -> int:
    """Floating-point operations of the matrix products in `step`, as torch counts them."""
    with FlopCounterMode(display=False) as counter:
        step()
    total: int = counter.get_total_flops()
    return total


def trained(model: nn.Module, *inputs: torch.Tensor) -> int:
    return counted(lambda: model(*inputs).backward())


def tokens(width: int = T) -> torch.Tensor:
    return torch.randint(3, 100, (B, width))


def test_a_token_of_a_decoder_takes_what_torch_counts() -> None:
    config = shape("tiny")
    each = compute.training(config, T)
    assert trained(new_decoder(config, 0), tokens(), tokens()) == pytest.approx(B * T * each, rel=0.03)  # biases


def test_a_masked_model_gives_logits_of_the_masked_places_alone() -> None:
    config, targets = shape("tiny-bert"), tokens()
    targets[:, T // 4 :] = IGNORED
    found = trained(new_encoder(config, 0), tokens(), targets)
    assert found == pytest.approx(B * T * compute.training(config, T, 0.25), rel=0.04)


def test_an_encoder_decoder_is_counted_by_what_it_reads_and_what_it_writes() -> None:
    config, written = shape("tiny-t5", decoder_layers=2), 20
    found = trained(new_t5(config, 0), tokens(), tokens(written), tokens(written))
    assert found == pytest.approx(B * compute.pair(config, T, written), rel=0.03)


def test_a_recurrent_model_also_attends_to_its_memory() -> None:
    config = shape("tiny-transformer-xl", memory=64)
    apart = compute.recurrent(config) - compute.recurrent(msgspec.structs.replace(config, memory=1))
    attention = 18 * 2 * 32 * 63  # three products of 2 layers, width 32, over 63 places more
    assert apart == pytest.approx(attention + 4 * 2 * 2 * 32 * 32 * 63 / 64)


def test_adapters_spare_the_gradients_of_frozen_weights() -> None:
    config = shape("tiny")
    whole, frozen = compute.training(config, T), compute.training(config, T, frozen=True)
    assert whole - frozen == pytest.approx(compute.forward(config, 0))


def test_tuning_is_counted_by_the_lengths_of_its_conversations(tmp_path: Path) -> None:
    job = sft_helpers.job_in(sft_helpers.chat_workspace(tmp_path), packing=True, batch_size=4)
    found = counted(job.step)
    assert found == pytest.approx(job.course.work.done(1, job.progress.tokens_seen), rel=0.1)


def test_a_direct_policy_has_read_its_reference_once_before_the_first_step(tmp_path: Path) -> None:
    workspace = reward_helpers.reward_workspace(tmp_path)
    settings = reward_helpers.SMALL | {"probes": False}
    job = dpo.prepare(made_run(workspace, "dpo", "first", settings, dataset="likes", checkpoint="base"))
    data, work = job.data, job.course.work
    epoch = int(data.train.lengths.sum() + data.val.lengths.sum())
    assert work.before / epoch == pytest.approx(work.per_token / 3)  # forward alone, of a model of the same shape
    assert work.done(0, 0) == work.before and work.done(5, 100) == work.before + 100 * work.per_token


@pytest.mark.parametrize("stage", ["grpo", "ppo"])
def test_a_policy_logs_what_its_rollouts_and_updates_take(stage: str, tmp_path: Path) -> None:
    job = test_policy.job_in(policy_helpers.policy_workspace(tmp_path), stage)
    settings, work, policy = job.settings, job.course.work, job.policy
    config, answers = policy.model.config, policy.answers
    once = compute.forward(config, answers.length, answers.share)
    assert work.per_drawn == once  # written; a pattern scores
    readings = 1 + 1 + 3 * settings.passes  # by the reference, by itself before several updates, and in these
    own = compute.critic(config, answers.length, passes=settings.passes, looks=True) if stage == "ppo" else 0.0
    assert work.per_token == pytest.approx(readings * once + own)
    job.course.follow(job.step)
    rows = [json.loads(line) for line in job.course.run.dir.metrics.read_text().splitlines()]
    last = [row for row in rows if "compute" in row][-1]
    assert last["compute"] == pytest.approx(last["tokens"] * (work.per_token + work.per_drawn))


def test_groups_that_are_drawn_again_count_as_drawn(tmp_path: Path) -> None:
    job = test_policy.job_in(policy_helpers.policy_workspace(tmp_path), "grpo", reward_pattern="^$", resample=2)
    job.step()  # all score 0, so every group is dead and drawn again, twice
    progress = job.policy.progress
    assert progress.tokens_drawn > 2 * progress.tokens_seen
