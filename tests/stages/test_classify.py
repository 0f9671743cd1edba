"""Models that label, as the detached workers they are: learning, resuming bit for bit, judging, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

from stages.asking.labeller import Labeller
from stages.classify import Job, prepare
from stages.models.decoder import Decoder
from stages.run import Run
from stages.store.checkpoints import list_checkpoints
from stages.store.classifiers import read_classified
from stages.store.errors import UserError
from stages.store.records import LabelledRecord
from stages.store.workspace import Workspace
from tests.stages.classify_helpers import SMALL, job_in, label_workspace, teach, write_decoder
from tests.stages.data.labels import TASKS, classes, labelled_dataset
from tests.stages.helpers import copy_of, finish
from tests.stages.resuming import bits, events, gone_on, killed_and_gone_on, rows
from workbench.cli.root import run as command


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return label_workspace(tmp_path_factory.mktemp("labels"))


@pytest.fixture
def workspace(original: Workspace, tmp_path: Path) -> Workspace:
    return copy_of(original, tmp_path)


def test_a_run_learns_labels_judges_itself_and_opens_in_transformers(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finish(teach(workspace, "colours", steps=80, eval_every=40, checkpoint_every=80))
    result, found = run.state().result, read_classified(run)
    assert result["val/accuracy"] > 0.9 and result["labels"] == 3
    assert {"train/accuracy", "train/lm_loss", "val/macro_f1", "lr"} <= rows(run.metrics)[-1].keys()
    assert found.accuracy.of == found.records == 40
    assert found.accuracy.value == pytest.approx(result["val/accuracy"])
    assert sum(map(sum, found.confusion)) == 40 and found.labels == ["cold", "dark", "warm"]
    assert [one.probability for one in found.worst] == sorted(one.probability for one in found.worst)

    folder = list_checkpoints(run)[-1].path
    text = "the hen near the dog is pink ."
    said = Labeller(folder).label([text])
    assert said["labels"][0]["label"] == "warm" and not said["cut"]
    theirs = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [tokenizer.eos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    with torch.no_grad():
        shares = theirs(torch.tensor([ids])).logits[0].softmax(0)
    assert shares[2].item() == pytest.approx(said["labels"][0]["probability"], abs=1e-4)
    assert theirs.config.id2label[2] == "warm"

    monkeypatch.setenv("WORKBENCH_HOME", str(workspace.root))
    assert command(["classify", "colours", text, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == said
    with pytest.raises(UserError, match="labels one text, and 2 are given"):
        command(["classify", "colours", text, text])
    labelled_dataset(
        workspace.datasets / "others", [*classes(20, 5), LabelledRecord(task="classify", texts=["x"], label="odd")]
    )
    assert command(["classified", "colours", "--data", "others", "--json"]) == 0
    judged = json.loads(capsys.readouterr().out.partition("{")[2].join(("{", "")))
    assert judged["accuracy"][1] == 21 and judged["worst"][0]["wanted"] == ["odd"]


@pytest.mark.parametrize("checkpoint", ["decoder", "encoder"])
@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_learnt_by_both_kinds_of_model(workspace: Workspace, task: str, checkpoint: str) -> None:
    """Words are learnt to entities, of which three in four have to be right from end to end."""
    job = job_in(workspace, dataset=task, checkpoint=checkpoint, steps=110, both_orders=task == "pair", dropout=0.0)
    for _ in range(110):
        job.step()
    found = job.evaluate(whole=True)
    assert found["val/accuracy"] > 0.85
    assert ("val/entity_f1" in found) == (task == "tokens")
    assert found.get("val/entity_f1", 1.0) > 0.75


def test_a_worker_killed_ends_with_the_same_bits_and_report(workspace: Workspace) -> None:
    settings = {"micro_batch": 3, "steps": 40}
    whole, broken = killed_and_gone_on(lambda name: teach(workspace, name, **settings), steps=40)
    assert bits(broken) == bits(whole)
    assert read_classified(broken).worst == read_classified(whole).worst


@pytest.mark.parametrize(
    ("precision", "lost", "task", "checkpoint"),
    [
        ("fp32", None, "classify", "decoder"),
        ("bf16", None, "tokens", "encoder"),
        ("fp32", "random", "tokens", "encoder"),
        ("bf16", "optimizer", "classify", "decoder"),
    ],
)
def test_resuming_changes_no_bit_unless_a_part_is_lost(
    workspace: Workspace, precision: str, lost: str | None, task: str, checkpoint: str
) -> None:
    settings: dict[str, Any] = {"precision": precision, "micro_batch": 3, "dataset": task, "checkpoint": checkpoint}
    whole, broken = job_in(workspace, "whole", **settings), job_in(workspace, "broken", **settings)
    gone_on(whole, broken, prepare, 3, 2, lost)


@pytest.mark.parametrize("task", TASKS)
def test_micro_batches_add_up_to_the_step(workspace: Workspace, task: str) -> None:
    settings: dict[str, Any] = {"dataset": task, "dropout": 0.0}
    whole, parts = job_in(workspace, "whole", **settings), job_in(workspace, "parts", **settings, micro_batch=3)
    for _ in range(3):
        (loss, norm, lr), (other, other_norm, other_lr) = whole.step(), parts.step()
        assert (loss, norm, lr) == pytest.approx((other, other_norm, other_lr), rel=1e-4)


def test_the_language_model_learns_beside_the_labels_as_the_weight_says(workspace: Workspace) -> None:
    with_it, without = job_in(workspace, "with", dropout=0.0), job_in(workspace, "without", lm_weight=0, dropout=0.0)
    loss, plain = with_it.step()[0], without.step()[0]
    records = with_it.data.train.order(0, 8, 0)
    batch = with_it.data.train.batch(records)
    model = job_in(workspace, "again", dropout=0.0).model
    tokens, documents = torch.from_numpy(batch.tokens), torch.from_numpy(batch.documents)
    assert isinstance(model.body, Decoder)
    nats = total = 0.0
    for start, end in zip(documents[:-1].tolist(), documents[1:].tolist(), strict=True):
        ids = tokens[:, start:end]
        nats += model.body(ids[:, :-1], ids[:, 1:]).item() * (end - start - 1)
        total += end - start - 1
    assert loss - plain == pytest.approx(0.5 * nats / total, rel=1e-4)


def test_an_output_layer_of_its_own_learns_on_after_a_resume(workspace: Workspace) -> None:
    untied = {"family": "llama", "norm_kind": "rms", "positions": "rotary", "gated": True, "activation": "silu"}
    write_decoder(workspace.models / "untied", **untied, tied=False, bias=False)
    whole, broken = (job_in(workspace, name, checkpoint="untied", dropout=0.0) for name in ("whole", "broken"))
    losses = [whole.step() for _ in range(4)]
    first = [broken.step() for _ in range(2)]
    broken.course.save(broken)
    again = prepare(Run(broken.run.dir.path))
    assert first + [again.step() for _ in range(2)] == losses
    theirs = AutoModelForSequenceClassification.from_pretrained(list_checkpoints(broken.run.dir)[-1].path)
    assert theirs.config.num_labels == 3


@pytest.mark.parametrize("checkpoint", ["decoder", "encoder"])
def test_from_scratch_begins_with_other_weights_of_the_same_shape(workspace: Workspace, checkpoint: str) -> None:
    base, scratch = (job_in(workspace, f"from-{n}", checkpoint=checkpoint, scratch=n > 0, seed=3) for n in range(2))
    shapes = [{name: part.shape for name, part in job.model.named_parameters()} for job in (base, scratch)]
    assert shapes[0] == shapes[1]
    assert not torch.equal(base.model.body.tokens, scratch.model.body.tokens)


def test_words_are_labelled_as_typed_and_opened_in_transformers(workspace: Workspace) -> None:
    job = job_in(workspace, dataset="tokens", checkpoint="encoder", steps=110, dropout=0.0)
    for _ in range(110):
        job.step()
    job.course.save(job)
    folder = list_checkpoints(job.run.dir)[-1].path
    said = Labeller(folder).label(["see the black hen"])
    assert [row["word"] for row in said["words"]] == ["see", "the", "black", "hen"]
    labels = [row["label"] for row in said["words"]]
    assert labels[:3] == ["O", "O", "B-beast"] and labels[3].endswith("beast")
    theirs = AutoModelForTokenClassification.from_pretrained(folder).eval()
    assert theirs.config.id2label[0] == "B-beast"


def test_what_cannot_be_learnt_is_told(workspace: Workspace) -> None:
    labelled_dataset(workspace.datasets / "mixed", [*classes(4), *TASKS["pair"](4)])
    with pytest.raises(UserError, match="several sorts of records: 4 classify, 4 pair"):
        job_in(workspace, dataset="mixed")
    chosen = job_in(workspace, "chosen", dataset="mixed", task="pair")
    assert len(chosen.data.train) == 4
    with pytest.raises(UserError, match="no record of the task choice"):
        job_in(workspace, dataset="mixed", task="choice")
    labelled_dataset(workspace.datasets / "one", [LabelledRecord(task="classify", texts=["a"], label="x")])
    with pytest.raises(UserError, match="nothing to tell apart"):
        job_in(workspace, dataset="one")
    with pytest.raises(UserError, match="Both orders are for pairs"):
        job_in(workspace, both_orders=True)
    with pytest.raises(UserError, match="sees 48 tokens"):
        job_in(workspace, context=49)
    chosen.step()
    chosen.course.save(chosen)
    with pytest.raises(UserError, match="labels texts and writes none"):
        job_in(workspace, "second", checkpoint="chosen")


def test_what_is_cut_or_unknown_is_told(workspace: Workspace) -> None:
    long = LabelledRecord(task="classify", texts=["the hen is red . " * 20], label="warm")
    new = LabelledRecord(task="classify", texts=["the hen is white ."], label="pale")
    labelled_dataset(workspace.datasets / "odd", [*classes(20), long], val=[*classes(4, 1), new])
    job = job_in(workspace, dataset="odd")
    told = [event["message"] for event in events(job.run.dir, "warning")]
    assert "1 of 26 records exceed 48 tokens and are cut." in told
    assert any("1 labels are in the validation part alone and cannot be learnt: 'pale'" in each for each in told)


def test_records_that_lack_what_their_task_needs_are_left_out_and_counted(workspace: Workspace) -> None:
    lame = {
        "choice": [LabelledRecord(task="choice", texts=["which ?", "cat"], label=label) for label in ("7", "b", None)],
        "pair": [LabelledRecord(task="pair", texts=["cat"], label="alive")],
        "tokens": [LabelledRecord(task="tokens", texts=[], labels=[])],
        "classify": [
            LabelledRecord(task="classify", texts=["cat"]),
            LabelledRecord(task="classify", texts=[], label="x"),
        ],
    }
    for task, records in lame.items():
        labelled_dataset(workspace.datasets / f"lame-{task}", [*TASKS[task](8), *records])
        job = job_in(workspace, task, dataset=f"lame-{task}")
        told = [event["message"] for event in events(job.run.dir, "warning")]
        assert told[0].startswith(f"{len(records)} records are left out: they lack")
        assert np.isfinite(job.step()[0])
    short = LabelledRecord(task="tokens", texts=["the", "hen"], labels=["O"])  # a label is missing
    labelled_dataset(workspace.datasets / "short", [*TASKS["tokens"](8), short])
    assert np.isfinite(job_in(workspace, "short", dataset="short", batch_size=9).step()[0])


def test_the_command_refuses_what_is_no_model_that_labels(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(workspace.root))
    with pytest.raises(UserError, match="holds no model that labels texts"):
        command(["classify", "decoder", "hello"])
    with pytest.raises(UserError, match="kind text"):
        labelled = workspace.datasets / "classify" / "dataset.json"
        labelled.write_text(labelled.read_text().replace('"labelled"', '"text"'))
        command(["train", "classify", "--data", "classify", "--from", "decoder"])


def batches_of(job: Job) -> list[np.ndarray[Any, Any]]:
    return [job.data.train.order(start, 8, 0) for start in range(0, 160, 8)]


def test_an_epoch_sees_every_record_once(workspace: Workspace) -> None:
    seen = np.concatenate(batches_of(job_in(workspace)))
    assert sorted(seen.tolist()) == list(range(160)) and seen.tolist() != list(range(160))
    assert SMALL["batch_size"] == 8
