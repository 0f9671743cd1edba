"""Reward models as the detached workers they are: learning, resuming bit for bit, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from stages.data.conversations import choose_template
from stages.data.preference_shards import preference_shards
from stages.data.rankings import Pairs, Rankings, text_of
from stages.measuring.judgement import judge
from stages.measuring.scorer import Scorer, refuse_other_language
from stages.reward import preference_loss, prepare
from stages.store.checkpoints import list_checkpoints, write_manifest
from stages.store.errors import UserError
from stages.store.records import Message, PreferenceRecord
from stages.store.rewards import read_card, read_scale
from stages.store.workspace import Workspace
from tests.stages.data.test_preference_shards import asked, preference_dataset
from tests.stages.helpers import copy_of, finish
from tests.stages.resuming import bits, events, gone_on, killed_and_gone_on, rows
from tests.stages.reward_helpers import job_in, liked, reward_workspace, train
from tests.tiny_model import write_tiny_checkpoint

LORA = {"method": "lora", "lora_rank": 4}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return reward_workspace(tmp_path_factory.mktemp("rewards"))


@pytest.fixture
def workspace(original: Workspace, tmp_path: Path) -> Workspace:
    return copy_of(original, tmp_path)


def test_a_model_learns_what_is_preferred_and_opens_in_transformers(workspace: Workspace) -> None:
    run = finish(train(workspace, "likes", steps=80, lr=1e-2, checkpoint_every=80, eval_every=40))
    result, card = run.state().result, read_card(run)
    assert (run.state().step, run.state().total, run.state().unit) == (80, 80, "steps")
    assert result["val/accuracy"] > 0.9 and result["val/loss"] < math.log(2)
    assert {"train/accuracy", "train/loss", "lr"} <= rows(run.metrics)[-1].keys()
    assert card.accuracy.value == pytest.approx(result["val/accuracy"])
    assert card.ece == pytest.approx(result["val/ece"])
    assert sum(one.pairs for one in card.bins) == card.accuracy.of
    assert card.longer_preferred.value == 1.0 and (card.length_within or 0) > 0.5
    assert all(worse.better_score < worse.worse_score and worse.probability < 0.5 for worse in card.worst)

    folder = list_checkpoints(run)[-1].path
    with Scorer(folder) as scorer:
        good, bad = (scorer.score([Message("user", "3+4")], text) for text in ("yes yes yes yes 5", "yes 5"))
    assert good.raw > bad.raw
    tokenizer = AutoTokenizer.from_pretrained(folder)
    theirs = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    chat = [{"role": "user", "content": "3+4"}, {"role": "assistant", "content": "yes yes yes yes 5"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False).rstrip("\n")
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert theirs(ids).logits.item() == pytest.approx(good.raw, abs=1e-4)


def test_scores_are_normal_on_the_reference_samples(workspace: Workspace) -> None:
    job = job_in(workspace, lr=1e-2)
    for _ in range(12):
        job.step()
    job.course.save(job)
    folder = list_checkpoints(job.run.dir)[-1].path
    scale, data = read_scale(folder), job.data.val
    assert scale.samples == 32  # 8 prompts of 4 completions
    with Scorer(folder) as scorer:
        raw = scorer.score_ids([text_of(data, number).tolist() for number in range(scale.samples)])
    normal = (raw - scale.mean) / scale.std
    assert normal.mean().item() == pytest.approx(0, abs=1e-3)
    assert normal.std(correction=0).item() == pytest.approx(1, abs=1e-3)


def test_a_worker_killed_ends_with_the_same_bits(workspace: Workspace) -> None:
    settings = {"micro_batch": 3, "steps": 30}
    whole, broken = killed_and_gone_on(lambda name: train(workspace, name, **settings), steps=30)
    assert bits(broken) == bits(whole)
    assert broken.state().result == whole.state().result


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("lost", [None, "optimizer"])
@pytest.mark.parametrize("how", [{}, {**LORA, "lora_dropout": 0.1}])
def test_resuming_changes_no_bit_unless_a_part_is_lost(
    workspace: Workspace, precision: str, lost: str | None, how: dict[str, Any]
) -> None:
    settings = {"precision": precision, "micro_batch": 3, "steps": 30, **how}
    whole, broken = job_in(workspace, "whole", **settings), job_in(workspace, "broken", **settings)
    gone_on(whole, broken, prepare, 3, 5, lost)


def test_adapters_are_merged_into_the_checkpoint(workspace: Workspace) -> None:
    job = job_in(workspace, lr=3e-2, **LORA)
    for _ in range(10):
        job.step()
    job.course.save(job)
    ours = judge(job.model, job.data.val, [0, 1]).scores
    with Scorer(list_checkpoints(job.run.dir)[-1].path) as scorer:
        raw = scorer.score_ids([text_of(job.data.val, number).tolist() for number in range(8)])
    np.testing.assert_allclose(raw, ours, rtol=0, atol=1e-4)
    frozen = {name: part for name, part in job.model.named_parameters() if not part.requires_grad}
    assert "score" not in frozen and "decoder.tokens" in frozen


def test_micro_batches_add_up_to_the_step(workspace: Workspace) -> None:
    whole, parts = job_in(workspace, "whole", batch_size=6), job_in(workspace, "parts", batch_size=6, micro_batch=2)
    for _ in range(3):
        (loss, norm, lr), (other, other_norm, other_lr) = whole.step(), parts.step()
        assert (loss, norm, lr) == pytest.approx((other, other_norm, other_lr), rel=1e-4)


def by_hand(scores: list[float], ranks: list[int], ties: str, margin: float, centring: float) -> float:
    """The formula, pair by pair."""
    found = []
    for i in range(len(scores)):
        for j in range(i + 1, len(scores)):
            if ranks[i] == ranks[j] and ties == "skip":
                continue
            d = scores[i] - scores[j] if ranks[i] <= ranks[j] else scores[j] - scores[i]
            apart = abs(ranks[i] - ranks[j])
            log_odds = [math.log1p(math.exp(-(d - margin * apart))), math.log1p(math.exp(d))]
            loss = log_odds[0] if apart else 0.5 * sum(log_odds)
            found.append(loss + centring * (scores[i] + scores[j]) ** 2)
    return sum(found) / len(found)


@pytest.mark.parametrize("ties", ["half", "skip"])
@pytest.mark.parametrize(("margin", "centring"), [(0.0, 0.0), (0.4, 0.01)])
def test_the_loss_is_the_formula(tmp_path: Path, ties: Any, margin: float, centring: float) -> None:
    write_tiny_checkpoint(tmp_path / "model", context=96)
    records = [asked("a", ["1", "2", "3", "4"], [2, 1, 1, 3]), asked("b", ["1", "2"], [1, 2])]
    dataset = preference_dataset(tmp_path / "likes", [*records, asked("c", ["1", "2"], [1, 1])])
    template = choose_template(tmp_path / "model", "auto")
    data = preference_shards(dataset, tmp_path / "model", template=template, context=96).train
    rankings = Rankings(data, 0, ties)
    assert len(rankings) == (3 if ties == "half" else 2)
    pairs = rankings.batch([0, 1]).pairs
    scores = torch.tensor([0.3, -1.0, 0.7, 0.1, 2.0, 2.5])
    margins = margin * torch.from_numpy(pairs.ranks_apart) if margin else None
    loss = preference_loss(scores, pairs, 2, margins_P=margins, centring=centring)
    expected = [
        by_hand([0.3, -1.0, 0.7, 0.1], [2, 1, 1, 3], ties, margin, centring),
        by_hand([2.0, 2.5], [1, 2], ties, margin, centring),
    ]
    assert loss.item() == pytest.approx(sum(expected) / 2, abs=1e-6)


def test_a_tie_draws_scores_together() -> None:
    one = np.array([0])
    pairs = Pairs(one, one + 1, np.array([True]), *(np.ones(1, np.float32) for _ in range(3)))
    scores = torch.tensor([1.0, -1.0], requires_grad=True)
    preference_loss(scores, pairs, 1).backward()
    assert scores.grad is not None and scores.grad[0] > 0 > scores.grad[1]


def test_another_template_or_tokenizer_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    own = "{% for m in messages %}{{ m.content }}{% generation %}!{% endgeneration %}{% endfor %}"
    write_tiny_checkpoint(workspace.models / "tuned", context=96, template=own)
    with pytest.raises(UserError, match="another chat template than 'raw'"):
        job_in(workspace, checkpoint="tuned", template="raw")
    with pytest.raises(UserError, match="another chat template"):
        refuse_other_language(workspace.models / "tuned", workspace.models / "base", "{{ other }}")
    other = write_tiny_checkpoint(tmp_path / "other")
    (other / "tokenizer.json").write_text((other / "tokenizer.json").read_text() + "\n")
    with pytest.raises(UserError, match="another tokenizer"):
        refuse_other_language(workspace.models / "base", other, "")


def test_prompts_that_are_formatted_already_are_refused(workspace: Workspace) -> None:
    formatted = [asked(f"\n\nHuman: {n}?\n\nAssistant:", ["yes", "no"], [1, 2]) for n in range(8)]
    preference_dataset(workspace.datasets / "formatted", formatted)
    with pytest.raises(UserError, match=r"formatted by another template already: they hold '\\n\\nHuman:'"):
        job_in(workspace, dataset="formatted")


def test_what_cannot_be_learnt_is_told(workspace: Workspace) -> None:
    preference_dataset(workspace.datasets / "ties", [asked("a", ["1", "2"], [1, 1])])
    with pytest.raises(UserError, match="nothing is preferred"):
        job_in(workspace, dataset="ties", ties="skip")
    with pytest.raises(UserError, match="no scores to take margins from"):
        job_in(workspace, margin="scores")
    long = PreferenceRecord(messages=[Message("user", "?" * 200)], completions=["a", "b"], ranks=[1, 2])
    preference_dataset(workspace.datasets / "long", [*liked(8), long])
    job = job_in(workspace, dataset="long")
    told = [event["message"] for event in events(job.run.dir, "warning")]
    assert "1 of 9 prompts are left out: record 9 of train" in told[0] and "no validation part" in told[-1]
    assert job.evaluate(whole=True) == {} and job.scale.samples > 0


def test_transformers_reads_the_score_at_the_end_where_padding_has_no_token_of_its_own(
    workspace: Workspace, tmp_path: Path
) -> None:
    """As GPT-2's tokenizer: the end of text would be taken for padding, and the score read before it."""
    config = workspace.models / "base" / "tokenizer_config.json"
    config.write_text(config.read_text().replace('"pad_token"', '"no_token"'))
    (config.parent / "manifest.json").unlink()
    write_manifest(config.parent)
    job = job_in(workspace, template="raw")
    job.write(tmp_path)
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    tokens = torch.from_numpy(text_of(job.data.val, 0))[None]
    with torch.no_grad():
        ours = job.model.scores(tokens, torch.ones_like(tokens, dtype=torch.bool))
        assert float(theirs(tokens).logits) == pytest.approx(float(ours), abs=1e-5)


def test_the_memory_is_tried_for_as_many_prompts_as_a_step_has_even_if_it_sees_one_again(workspace: Workspace) -> None:
    preference_dataset(workspace.datasets / "single", liked(1))
    job = job_in(workspace, dataset="single", batch_size=8)
    (found,) = events(job.run.dir, "memory")
    assert found["rows"] == job.memory.rows == 8
