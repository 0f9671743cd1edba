"""Instruction tuning as the detached worker it is: learning, resuming bit for bit, and living with little memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from stages import desk
from stages.data import loss_masks
from stages.data.packing import Batch, Rows
from stages.data.records import read_records
from stages.generate import Sampling, generate
from stages.models.hf import load_model
from stages.models.hf_config import end_ids
from stages.models.opening import open_decoder
from stages.sft import Job, prepare
from stages.store.checkpoints import list_checkpoints, write_manifest
from stages.store.datasets import find_dataset
from stages.store.errors import UserError, WorkFailed
from stages.store.records import ChatRecord, Message
from stages.store.workspace import Workspace
from stages.training.memory import kept_by_autograd, probe
from stages.training.tuning import probe_prompts
from tests.stages.data.chats import chat_dataset
from tests.stages.helpers import copy_of, finish
from tests.stages.resuming import bits, events, gone_on, killed_and_gone_on, losses, rows
from tests.stages.sft_helpers import chat_workspace, job_in, sums, tune

LORA = {"method": "lora", "lora_rank": 4, "lora_dropout": 0.1}
DATA = Path(os.environ.get("WORKBENCH_TEST_DATA", ""))


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return chat_workspace(tmp_path_factory.mktemp("chats"))


@pytest.fixture
def workspace(original: Workspace, tmp_path: Path) -> Workspace:
    return copy_of(original, tmp_path)


def test_a_model_learns_answers_and_opens_in_transformers(workspace: Workspace) -> None:
    run = finish(tune(workspace, "one", steps=120, eval_every=40, checkpoint_every=120, sample_every=60, probes=True))
    validated = [row["val/loss"] for row in rows(run.metrics) if "val/loss" in row]
    assert len(validated) == 3 and validated[-1] < validated[0] < 5.6
    result = run.state().result
    assert result["conversations"] == 120 and 0 < result["trained_share"] < 1 and 0.7 < result["filled"] <= 1
    asked = rows(run.samples)
    assert sorted({row["step"] for row in asked}) == [0, 60, 120]
    assert [row["prompt"] for row in asked if row["step"] == 120] == ["1+1", *probe_prompts()]
    assert len(probe_prompts()) == 20

    folder = list_checkpoints(run)[-1].path
    tokenizer = AutoTokenizer.from_pretrained(folder)
    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    chat = [{"role": "user", "content": "3+4"}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert tokenizer.decode(ids) == "<|im_start|>user\n3+4<|im_end|>\n<|im_start|>assistant\n"
    assert theirs.generation_config.eos_token_id == [3, 0]
    greedy = theirs.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=8, pad_token_id=1)[0, len(ids) :]
    mine = generate(load_model(folder), [ids], Sampling(temperature=0, max_new_tokens=8, stop_ids=(3, 0)))[0]
    assert mine == greedy.tolist()


def test_a_worker_killed_in_mid_epoch_ends_with_the_same_bits(workspace: Workspace) -> None:
    settings = {"dropout": 0.1, "micro_batch": 3, "steps": 40}
    whole, broken = killed_and_gone_on(lambda name: tune(workspace, name, **settings), steps=40)
    assert bits(broken) == bits(whole)
    assert losses(broken) == losses(whole)


@pytest.mark.parametrize("lost", [None, "random", "optimizer"])
@pytest.mark.parametrize(
    ("how", "precision"),
    [
        ({"packing": True}, "bf16"),
        ({"packing": False}, "fp32"),
        (LORA, "bf16"),
        ({**LORA, "lora_keep": "adapter"}, "fp32"),
    ],
)
def test_resuming_changes_no_bit_unless_a_part_is_lost(
    workspace: Workspace, precision: str, lost: str | None, how: dict[str, Any]
) -> None:
    settings = {"precision": precision, "dropout": 0.1, "micro_batch": 3, "steps": 40, **how}
    whole, broken = job_in(workspace, "whole", **settings), job_in(workspace, "broken", **settings)
    assert gone_on(whole, broken, prepare, 4, 5, lost).memory.rows == 3


def logits(folder: Path) -> Tensor:
    with torch.no_grad():
        return open_decoder(folder)(torch.arange(4, 60)[None])


def test_adapters_learn_and_are_kept_merged_or_alone(workspace: Workspace) -> None:
    found = {}
    for keep in ("merged", "adapter"):
        job = job_in(workspace, keep, lora_keep=keep, lr=3e-2, **LORA)
        before = job.evaluate(whole=True)["val/loss"]
        for _ in range(20):
            job.step()
        job.course.save(job)
        assert job.course.metrics["val/loss"] < before
        assert all(p.requires_grad == (".lora." in name) for name, p in job.model.named_parameters())
        job.model.eval()
        with torch.no_grad():
            found[keep] = job.model(torch.arange(4, 60)[None])
        folder = list_checkpoints(job.run.dir)[-1].path
        torch.testing.assert_close(logits(folder), found[keep], rtol=0, atol=1e-4)
        assert (folder / "config.json").exists() == (keep == "merged")
        assert (folder / "chat_template.jinja").exists()
        seen = loss_masks.of(desk.Job(workspace), dataset="sums", checkpoint=str(folder), record=0)
        assert seen["trained"] and not seen["why"]
    torch.testing.assert_close(found["merged"], found["adapter"])
    assert not torch.allclose(found["merged"], logits(workspace.models / "base"), atol=1e-3)
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(workspace.models / "base"), folder).eval()
    with torch.no_grad():
        torch.testing.assert_close(theirs(torch.arange(4, 60)[None]).logits, found["adapter"], rtol=0, atol=1e-4)


def test_a_tuned_model_can_be_tuned_again(workspace: Workspace) -> None:
    first = job_in(workspace, "first", **LORA)
    first.step()
    first.course.save(first)
    again = job_in(workspace, "again", checkpoint="first", lora_keep="merged", **LORA)
    assert again.evaluate(whole=True)["val/loss"] == pytest.approx(first.course.metrics["val/loss"], abs=1e-5)


def test_an_unknown_layer_for_adapters_is_refused(workspace: Workspace) -> None:
    with pytest.raises(UserError, match="no layer 'c_atn'"):
        job_in(workspace, **LORA, lora_targets=["c_atn"])


def test_what_is_refused_or_cut_is_told_by_name(workspace: Workspace) -> None:
    long = [turn for n in range(12) for turn in (Message("user", f"{n}+1"), Message("assistant", f"{n + 1}"))]
    chat_dataset(workspace.datasets / "mixed", [*sums(8), [Message("user", "?")], long])
    job = job_in(workspace, dataset="mixed")
    told = [event["message"] for event in events(job.run.dir, "warning")]
    assert told[0] == (
        "1 of 10 conversations are left out: record 9 of train from mixed.jsonl: "
        "It has no assistant's turn, so there is nothing to learn."
    )
    assert "1 of 10 conversations exceed 96 tokens and lost" in told[1]
    assert "no validation part" in told[2]
    assert job.evaluate(whole=True) == job.evaluate(whole=False) == {}


def test_a_dataset_with_nothing_to_learn_is_refused(workspace: Workspace) -> None:
    chat_dataset(workspace.datasets / "silent", [[Message("user", "?")]])
    with pytest.raises(UserError, match=r"No conversation of 'silent' can be trained on: record 1 of train"):
        job_in(workspace, dataset="silent")


def test_a_context_longer_than_the_models_is_refused(workspace: Workspace) -> None:
    with pytest.raises(UserError, match="sees 96 tokens"):
        job_in(workspace, context=97)


@pytest.mark.parametrize("packing", [True, False])
def test_micro_batches_add_up_to_the_step(workspace: Workspace, packing: bool) -> None:
    whole = job_in(workspace, "whole", packing=packing, batch_size=6)
    parts = job_in(workspace, "parts", packing=packing, batch_size=6, micro_batch=2)
    for _ in range(3):
        (loss, norm, lr), (other, other_norm, other_lr) = whole.step(), parts.step()
        assert (loss, norm, lr) == pytest.approx((other, other_norm, other_lr), rel=1e-4)


def test_activation_checkpointing_changes_memory_and_not_the_loss(workspace: Workspace) -> None:
    plain, again = job_in(workspace, "plain"), job_in(workspace, "again", activation_checkpointing=True)
    assert [plain.step() for _ in range(2)] == [again.step() for _ in range(2)]
    batch = plain.train.batch(plain.train.costliest(4), 1)
    kept = [kept_by_autograd(lambda job=job: job.loss(batch), job.model.parameters()) for job in (plain, again)]
    assert kept[1] < kept[0]


@contextmanager
def little_memory(job: Job, tokens: int) -> Iterator[list[int]]:
    """A device that holds no batch of more than `tokens` tokens; the sizes that were tried."""
    real, tried = job.loss, list[int]()

    def loss(batch: Batch) -> Tensor:
        tried.append(batch.tokens.size)
        if batch.tokens.size > tokens:
            raise torch.OutOfMemoryError("out of memory")
        return real(batch)

    job.loss = loss  # type: ignore[method-assign]
    yield tried
    job.loss = real  # type: ignore[method-assign]


def test_memory_that_runs_out_halves_the_micro_batch_and_keeps_the_step(workspace: Workspace) -> None:
    whole, poor = job_in(workspace, "whole", batch_size=8), job_in(workspace, "poor", batch_size=8)
    expected = whole.step()
    with little_memory(poor, 250) as tried:
        assert poor.step() == pytest.approx(expected, rel=1e-4)
    assert poor.memory.rows == 2 and max(tried) > 250
    told = [event["message"] for event in events(poor.run.dir, "warning") if "Memory" in event["message"]]
    assert "from here on 4 rows" in told[0] and "A step still sees 8." in told[1]
    assert poor.progress.tokens_seen == whole.progress.tokens_seen
    with little_memory(poor, 10), pytest.raises(WorkFailed, match="single row"):
        poor.step()


def test_the_memory_is_tried_before_the_run_and_listed_by_part(workspace: Workspace) -> None:
    job = job_in(workspace, batch_size=8)
    (found,) = events(job.run.dir, "memory")
    weights = sum(parameter.numel() * 4 for parameter in job.model.parameters())
    assert weights <= found["weights"] <= 1.2 * weights
    assert found["gradients"] >= 2 * weights and found["optimiser"] >= 2 * weights and found["activations"] > 0
    assert found["total"] == sum(found[part] for part in ("weights", "gradients", "optimiser", "activations"))
    with little_memory(job, 250) as tried:
        chosen = probe(job.model, job.opened.optimizer, job.costliest, 8)
    assert chosen.rows == 2 and tried == [tried[0], 8 * tried[0], 4 * tried[0], 2 * tried[0]]
    assert all(parameter.grad is None for parameter in job.model.parameters())


@pytest.mark.parametrize("packing", [True, False])
def test_the_memory_is_tried_for_as_many_rows_as_a_step_has_even_if_it_sees_one_again(
    workspace: Workspace, packing: bool
) -> None:
    chat_dataset(workspace.datasets / "single", sums(1))
    job = job_in(workspace, dataset="single", batch_size=8, packing=packing)
    (found,) = events(job.run.dir, "memory")
    assert found["rows"] == job.memory.rows == 8


def test_the_probe_changes_nothing_in_training(workspace: Workspace) -> None:
    probed = job_in(workspace, "probed", dropout=0.1)
    again = job_in(workspace, "again", dropout=0.1)
    again.memory.choose(again.model, again.opened.optimizer, again.costliest)
    torch.manual_seed(0)
    first = again.step()
    torch.manual_seed(0)
    assert probed.step() == first


def as_chats(records: list[tuple[str, str]]) -> list[list[Message]]:
    return [[Message("user", question), Message("assistant", answer)] for question, answer in records]


def real_chats(name: str) -> list[list[Message]]:
    """gsm8k's questions, or self_instruct's seed tasks with their first instance."""
    if name == "gsm8k":
        path = DATA / "gsm8k" / "train_2000.jsonl"
        return as_chats([(row["question"], row["answer"]) for row in map(json.loads, path.open())])
    found = []
    for row in map(json.loads, (DATA / "self_instruct" / "seed_tasks.jsonl").open()):
        instance = row["instances"][0]
        found.append((f"{row['instruction']}\n{instance['input']}".strip(), instance["output"]))
    return as_chats(found)


@pytest.mark.skipif(not DATA.is_dir() or not DATA.name, reason="WORKBENCH_TEST_DATA is not set")
@pytest.mark.parametrize("name", ["gsm8k", "self_instruct"])
def test_a_real_dataset_is_masked_and_learnt(tmp_path: Path, name: str) -> None:
    learn_real(tmp_path, name, records=150, steps=20)


@pytest.mark.bench
@pytest.mark.skipif(not DATA.is_dir() or not DATA.name, reason="WORKBENCH_TEST_DATA is not set")
@pytest.mark.parametrize("name", ["gsm8k", "self_instruct"])
def test_a_real_dataset_is_learnt_for_a_few_hundred_steps(tmp_path: Path, name: str) -> None:
    learn_real(tmp_path, name, records=2_000, steps=300)


def learn_real(folder: Path, name: str, *, records: int, steps: int) -> None:
    workspace = chat_workspace(folder, context=1024)
    chats = real_chats(name)[:records]
    held_out = len(chats) // 10
    chat_dataset(workspace.datasets / name, chats[held_out:], val=chats[:held_out])
    job = job_in(workspace, dataset=name, steps=steps, lr=1e-2, batch_size=2)
    counts = job.data.info.splits["train"]
    assert counts.conversations + counts.refused == len(chats) - held_out and counts.refused < 0.4 * len(chats)
    losses = [job.evaluate(whole=True)["val/loss"]]
    for _ in range(2):
        for _ in range(steps // 2):
            job.step()
        losses.append(job.evaluate(whole=True)["val/loss"])
    assert losses[0] > losses[1] > losses[2]


def test_the_masks_of_a_real_conversation_say_what_the_record_says(workspace: Workspace) -> None:
    job = job_in(workspace)
    records = [r for r in read_records(find_dataset(workspace, "sums"), "train") if isinstance(r, ChatRecord)]
    data = job.data.train
    for number, record in enumerate(records[:20]):
        ids, trained = (part[data.starts[number] : data.starts[number + 1]] for part in (data.ids, data.trained))
        said = job.tokenizer.decode(ids[trained != 0].tolist())
        assert said == "".join(m.content for m in record.messages if m.role == "assistant")


def test_rows_are_fuller_than_padding(workspace: Workspace) -> None:
    job = job_in(workspace)
    padded = Rows(job.data.train, 96, 0, packed=False).batch(np.arange(len(job.data.train)), 1)
    assert job.train.filled > padded.real / padded.tokens.size


def test_a_validation_of_a_part_sees_long_and_short_conversations(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packed rows begin with the longest conversations: the first ones would not stand for all."""
    said = [[Message("user", "a" * n), Message("assistant", "b" * n)] for n in (1, 2, 3, 4, 5, 20, 25, 30)]
    chat_dataset(workspace.datasets / "mixed", said, val=said * 8)
    job = job_in(workspace, dataset="mixed", eval_tokens=600)
    seen: list[int] = []
    batch_of = job.validation.batch

    def noted(rows: Any, pad: int) -> Batch:
        seen.extend(each for row in rows for each in job.validation.members(int(row)).tolist())
        return batch_of(rows, pad)

    monkeypatch.setattr(job.validation, "batch", noted)
    job.evaluate(whole=False)
    lengths = job.data.val.lengths
    assert len(seen) < len(lengths) and lengths[seen].mean() == pytest.approx(lengths.mean(), rel=0.15)


def test_the_masks_follow_a_template_that_is_being_written(workspace: Workspace, tmp_path: Path) -> None:
    template = tmp_path / "own.jinja"
    shown = []
    for end in ("!", "?"):
        template.write_text(
            "{% for m in messages %}{% generation %}{{ m.content }}" + end + "{% endgeneration %}{% endfor %}"
        )
        job = desk.Job(workspace)
        found = loss_masks.of(job, dataset="sums", checkpoint="base", record=0, template=str(template))
        shown.append("".join(text for text, _, _ in found["tokens"])[-1])
    assert shown == ["!", "?"]


def test_what_ends_the_bases_texts_ends_answers_and_stays_known(workspace: Workspace, tmp_path: Path) -> None:
    """As a model of others that ends by more tokens than its tokenizer and template name."""
    config = workspace.models / "base" / "generation_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"eos_token_id": [0, 77]}))
    (config.parent / "manifest.json").unlink()
    write_manifest(config.parent)
    job = job_in(workspace)
    job.write(tmp_path)
    assert 77 in job.prompts.stops and set(end_ids(tmp_path)) == set(job.prompts.stops)
