"""DPO as the detached worker it is: the loss of TRL, the reference kept beside the run, resuming bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from stages.data.comparisons import chosen_pairs
from stages.data.rankings import pairs_of
from stages.data.records import read_records
from stages.dpo import Job, judge_pairs, prepare, words_chosen
from stages.policies.reference_cache import FOLDER, completion_logprobs
from stages.run import Run
from stages.store.checkpoints import list_checkpoints, write_manifest
from stages.store.datasets import find_dataset
from stages.store.errors import UserError
from stages.store.records import PreferenceRecord
from stages.store.rundir import RunDir
from stages.store.specs.dpo import DPO
from stages.store.workspace import Workspace
from tests.stages.data.test_preference_shards import preference_dataset
from tests.stages.helpers import copy_of, finish, made_run
from tests.stages.resuming import bits, events, gone_on, killed_and_gone_on, rows
from tests.stages.reward_helpers import SMALL as SMALL_REWARD
from tests.stages.reward_helpers import liked, reward_workspace
from tests.tiny_model import write_tiny_checkpoint
from workbench import runs

SMALL = SMALL_REWARD | {"sample_every": 12, "sample_tokens": 8, "probes": False, "sample_prompts": ["1+1"]}
LORA = {"method": "lora", "lora_rank": 4}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """`likes` ranks four completions a prompt, `couples` two; `other` is another model, with the same tokenizer."""
    workspace = reward_workspace(tmp_path_factory.mktemp("dpo"))
    preference_dataset(workspace.datasets / "couples", liked(40, k=2), val=liked(12, k=2, seed=1))
    write_tiny_checkpoint(workspace.models / "other", context=96, seed=7)
    return workspace


@pytest.fixture
def workspace(original: Workspace, tmp_path: Path) -> Workspace:
    return copy_of(original, tmp_path)


def improve(workspace: Workspace, name: str, **settings: Any) -> RunDir:
    """Launch a small DPO as a detached worker."""
    return runs.launch(workspace, "dpo", name, SMALL | settings, dataset="likes", checkpoint="base")


def job_in(
    workspace: Workspace, name: str = "job", *, dataset: str = "likes", reference: str | None = None, **settings: Any
) -> Job:
    """The same, prepared in this process."""
    parents = {"dataset": dataset, "checkpoint": "base", "reference": reference}
    return prepare(made_run(workspace, "dpo", name, SMALL | settings, **parents))


def test_a_policy_learns_what_is_preferred_and_opens_in_transformers(workspace: Workspace) -> None:
    run = finish(improve(workspace, "better", steps=60, lr=3e-3, eval_every=30, checkpoint_every=60, sample_every=30))
    result, logged = run.state().result, rows(run.metrics)
    assert result["val/accuracy"] > 0.9
    assert logged[-1]["dpo/margin"] > logged[0]["dpo/margin"] and logged[0]["dpo/accuracy"] <= 1
    assert {"dpo/chosen", "dpo/rejected", "val/chosen", "val/rejected"} <= logged[-1].keys()
    assert sorted({row["step"] for row in rows(run.samples)}) == [0, 30, 60]
    assert len(events(run, "memory")) == 1
    AutoModelForCausalLM.from_pretrained(list_checkpoints(run)[-1].path)


def test_before_the_first_update_policy_and_reference_agree(workspace: Workspace) -> None:
    job = job_in(workspace, batch_size=8)
    loss, _, _ = job.step()
    assert loss == pytest.approx(np.log(2), abs=1e-5)


@pytest.mark.parametrize("how", [{}, LORA])
def test_the_reference_is_the_base_unless_another_is_named(workspace: Workspace, how: dict[str, Any]) -> None:
    plain, other = job_in(workspace, "plain", **how), job_in(workspace, "other", reference="other", **how)
    batch = plain.batch(plain.train.prompts[:4])
    with torch.no_grad():
        now = completion_logprobs(plain.model, batch.packed, plain.device)
        assert now.numpy() == pytest.approx(plain.reference[0][batch.numbers], abs=1e-4)
    assert np.abs(plain.reference[0] - other.reference[0]).max() > 0.05


def test_the_reference_is_read_once_and_completed_when_cut_short(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.policies.reference_cache.AT_ONCE", 500)
    job = job_in(workspace)
    (train,) = (job.run.dir.path / FOLDER).glob("*.train")
    whole = train.read_bytes()
    assert len(whole) == 4 * len(job.data.train.lengths)
    train.write_bytes(whole[: len(whole) // 2 + 3])
    assert np.array_equal(prepare(Run(job.run.dir.path)).reference[0], job.reference[0])
    assert train.read_bytes() == whole
    monkeypatch.setattr("stages.policies.reference_cache.open_whole", None)  # nothing is missing: no model is loaded
    prepare(Run(job.run.dir.path))


def test_a_reference_with_another_tokenizer_is_refused(workspace: Workspace) -> None:
    tokenizer = workspace.models / "other" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + "\n")
    manifest = workspace.models / "other" / "manifest.json"
    manifest.unlink()
    write_manifest(manifest.parent)
    with pytest.raises(UserError, match="another tokenizer"):
        job_in(workspace, reference="other")


def test_a_reference_that_sees_too_little_is_refused(workspace: Workspace) -> None:
    write_tiny_checkpoint(workspace.models / "short", context=12)
    with pytest.raises(UserError, match="The reference sees 12 tokens"):
        job_in(workspace, reference="short")


def test_a_worker_killed_ends_with_the_same_bits(workspace: Workspace) -> None:
    settings = {"micro_batch": 3, "steps": 30, "sft_term": 0.2}
    whole, broken = killed_and_gone_on(lambda name: improve(workspace, name, **settings), steps=30)
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


@pytest.mark.parametrize("how", [{"sft_term": 0.5}, {"pairs": "best_worst", "length_normalised": True}])
def test_micro_batches_add_up_to_the_step(workspace: Workspace, how: dict[str, Any]) -> None:
    whole = job_in(workspace, "whole", batch_size=6, **how)
    parts = job_in(workspace, "parts", batch_size=6, micro_batch=2, **how)
    for _ in range(3):
        assert whole.step() == pytest.approx(parts.step(), rel=1e-4)


def test_pairs_are_all_that_differ_or_the_ends(workspace: Workspace) -> None:
    data = job_in(workspace).data.train
    for prompt in range(len(data)):
        ranks = data.ranks[data.groups[prompt] : data.groups[prompt + 1]]
        every = chosen_pairs(data, np.array([prompt]), "all")
        ends = chosen_pairs(data, np.array([prompt]), "best_worst")
        assert len(every.better) == sum(int((ranks > rank).sum()) for rank in ranks)
        assert (ranks[every.better] < ranks[every.worse]).all()
        assert (ranks[ends.better] == ranks.min()).all() and (ranks[ends.worse] == ranks.max()).all()
        if len(every.better):
            assert every.weights.sum() == pytest.approx(1) and ends.weights.sum() == pytest.approx(1)
            assert len(ends.better) == (ranks == ranks.min()).sum() * (ranks == ranks.max()).sum()


def trainer(job: Job, folder: Path, dataset: str, **settings: Any) -> DPOTrainer:
    """TRL's trainer on the same model, reference and pairs: the best and the worst answer where each is alone there."""
    records = read_records(find_dataset(job.run.workspace, dataset), "train")
    pairs = [
        {
            "prompt": [{"role": "user", "content": record.messages[0].content}],
            "chosen": [{"role": "assistant", "content": record.completions[record.ranks.index(1)]}],
            "rejected": [{"role": "assistant", "content": record.completions[record.ranks.index(max(record.ranks))]}],
        }
        for record in records
        if isinstance(record, PreferenceRecord) and _has_ends(record.ranks)
    ]
    tokenizer = AutoTokenizer.from_pretrained(job.base)
    tokenizer.chat_template = job.template
    models = [
        AutoModelForCausalLM.from_pretrained(job.run.workspace.models / name, dtype=torch.float32)
        for name in ("base", "other")
    ]
    arguments = DPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=8,
        max_length=96,
        use_cpu=True,
        bf16=False,
        report_to=[],
        beta=job.settings.beta,
        **settings,
    )
    return DPOTrainer(
        model=models[0],
        ref_model=models[1],
        args=arguments,
        train_dataset=Dataset.from_list(pairs),
        processing_class=tokenizer,
    )


VARIANTS = [
    ({}, {}),
    # TRL smooths no sigmoid loss, but its robust one has the same two terms: s = 2 (1 − ε) sigmoid − (1 − 2ε) robust
    (
        {"label_smoothing": 0.2},
        {"loss_type": ["sigmoid", "robust"], "label_smoothing": 0.2, "loss_weights": [1.6, -0.6]},
    ),
    ({"pairs": "best_worst"}, {}),
    ({"beta": 0.7}, {}),
    ({"loss": "robust", "label_smoothing": 0.2}, {"loss_type": "robust", "label_smoothing": 0.2}),
    ({"length_normalised": True, "beta": 2.0}, {"loss_type": "sigmoid_norm"}),
    ({"loss": "ipo", "length_normalised": True}, {"loss_type": "ipo"}),
    ({"sft_term": 0.5}, {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]}),
]


@pytest.mark.parametrize(("ours", "theirs"), VARIANTS)
def test_the_loss_is_that_of_trl(
    workspace: Workspace, tmp_path: Path, ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    dataset = "likes" if "pairs" in ours else "couples"
    job = job_in(workspace, dataset=dataset, reference="other", batch_size=8, **ours)
    their = trainer(job, tmp_path / "trl", dataset, **theirs)
    inputs = next(iter(their.get_train_dataloader()))
    their.model.eval()
    ends = inputs["attention_mask"].sum(1) - 1
    inputs["completion_mask"][torch.arange(len(ends)), ends] = 0  # the template's line break: nothing is to say it
    with torch.no_grad():
        expected = float(their.compute_loss(their.model, dict(inputs)))
        wanted = {tuple(ids[: end + 1].tolist()) for ids, end in zip(inputs["input_ids"], ends, strict=True)}
        prompts = np.array([prompt for prompt in job.train.prompts if _texts(job, prompt) <= wanted])
        assert len(prompts) == 8
        batch = job.batch(prompts)
        job.model.eval()
        found = float(job.loss(batch, 8, words_chosen(batch)))
    assert found == pytest.approx(expected, abs=1e-5)
    assert found != pytest.approx(np.log(2), abs=1e-3)


def _has_ends(ranks: Sequence[int]) -> bool:
    return min(ranks) < max(ranks) and ranks.count(min(ranks)) == ranks.count(max(ranks)) == 1


def _texts(job: Job, prompt: int) -> set[tuple[int, ...]]:
    """Tokens of a prompt's best and worst completions."""
    data = job.data.train
    members = list(data.members(int(prompt)))
    ends = {int(data.ranks[members].min()), int(data.ranks[members].max())}
    return {tuple(data.completion(number)[0].tolist()) for number in members if data.ranks[number] in ends}


@pytest.mark.parametrize("normalised", [False, True])
def test_ipo_is_its_formula(normalised: bool) -> None:
    """TRL has the normalised one alone; that of the paper is held against the paper."""
    logprobs, reference = torch.randn(2, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    lengths = torch.tensor([3.0, 1.0, 7.0, 2.0], dtype=torch.float64)
    pairs = pairs_of(np.array([1, 2, 3, 4], np.int16), np.full(4, np.nan, np.float32), "skip")
    settings = DPO(loss="ipo", beta=0.3, length_normalised=normalised)
    found = judge_pairs(logprobs, reference, lengths, pairs, settings).losses
    ratios = ((logprobs - reference) / (lengths if normalised else 1)).tolist()
    expected = [
        ((ratios[better] - ratios[worse]) - 1 / (2 * 0.3)) ** 2
        for better, worse in zip(pairs.better, pairs.worse, strict=True)
    ]
    assert len(expected) == 6 and found.tolist() == pytest.approx(expected, abs=1e-12)


def test_smoothing_that_ipo_does_not_know_is_told(workspace: Workspace) -> None:
    job = job_in(workspace, loss="ipo", label_smoothing=0.1)
    assert any("label_smoothing" in warned["message"] for warned in events(job.run.dir, "warning"))


@pytest.mark.parametrize(
    "settings", [{"loss": "ipo", "beta": 0.01}, {"loss": "robust", "beta": 1.0, "label_smoothing": 0.49}]
)
def test_a_loss_that_is_large_by_its_formula_is_no_explosion(workspace: Workspace, settings: dict[str, Any]) -> None:
    """Their losses differ by more than two nats from batch to batch, while what is preferred is learnt."""
    job = job_in(workspace, lr=1e-3, steps=60, **settings)
    losses = [job.step().loss for _ in range(60)]
    assert max(losses) > min(losses) + 2 and np.mean(losses[-10:]) < np.mean(losses[:10])
    assert job.evaluate(whole=True)["val/accuracy"] > 0.8


def test_label_smoothing_mixes_the_loss_with_that_of_the_labels_turned_round() -> None:
    logprobs, reference, lengths = torch.randn(3, 6, generator=torch.Generator().manual_seed(0)).unbind()
    lengths = lengths.abs() + 1
    ranks, scores = np.array([1, 2, 3, 3, 5, 6], np.int16), np.full(6, np.nan, np.float32)
    pairs = pairs_of(ranks, scores, "skip")
    turned = pairs._replace(better=pairs.worse, worse=pairs.better)

    def losses(which: Any, smoothing: float) -> torch.Tensor:
        return judge_pairs(logprobs, reference, lengths, which, DPO(label_smoothing=smoothing)).losses

    expected = 0.9 * losses(pairs, 0.0) + 0.1 * losses(turned, 0.0)
    assert torch.allclose(losses(pairs, 0.1), expected)
