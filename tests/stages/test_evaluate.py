"""Evaluation: figures that are right by another's arithmetic, and answers judged as people would."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from stages.asking.completion import open_text_model
from stages.evaluate import evaluate
from stages.generate import Sampling, generate
from stages.measuring.likelihood import Scored, log_likelihoods, windows
from stages.measuring.matching import is_right
from stages.store.checkpoints import list_checkpoints
from stages.store.errors import UserError
from stages.store.evaluations import read_evaluation
from stages.store.records import ChatRecord, LabelledRecord, Message, PromptRecord, Record, TextRecord
from stages.store.rundir import find_run
from stages.store.specs.evaluate import Evaluate
from stages.store.workspace import Workspace
from tests.stages.helpers import build_small_world, finish, pretrain
from workbench import runs


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Path]:
    """A workspace with a model that has learnt a little, and its last checkpoint."""
    folder = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        workspace = build_small_world(folder)
        run = finish(pretrain(workspace, "small"))
    return workspace, list_checkpoints(run)[-1].path


def measured(folder: Path, records: Sequence[Record], **settings: object) -> dict[str, float]:
    row = evaluate(folder, records, Evaluate(**settings), "cpu", lambda done, total: None)  # type: ignore[arg-type]
    return row.figures | {name: part.value or 0.0 for name, part in row.shares.items()}


def hf_log_likelihood(folder: Path, ids: list[int], read: int) -> float:
    """Σ log p of ids[read:], by transformers in float64."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    with torch.no_grad():
        logs = model(torch.tensor([ids[:-1]])).logits[0].log_softmax(-1)
    return sum(float(logs[place - 1, ids[place]]) for place in range(read, len(ids)))


@given(st.integers(2, 200), st.integers(1, 40))
def test_windows_predict_each_token_once_from_half_a_context(length: int, context: int) -> None:
    ids = list(range(length))
    predicted: list[int] = []
    for piece in windows(ids, context):
        assert 1 <= piece.read < len(piece.ids) <= context + 1
        assert piece.ids[0] == 0 or piece.read > context // 2 - 1
        predicted += piece.ids[piece.read :]
    assert predicted == ids[1:]


def test_log_likelihoods_are_those_of_transformers_whatever_the_batch(trained: tuple[Workspace, Path]) -> None:
    _, folder = trained
    model = open_text_model(folder, "cpu")
    texts = ["10 green bottles", "x", "7 brown ones.\n\n8 green"]
    pieces = [
        Scored([model.tokenizer.eos_id, *model.tokenizer.encode(text)][:17], 1 + i) for i, text in enumerate(texts)
    ]
    pieces = [piece for piece in pieces if len(piece.ids) > piece.read]
    expected = [hf_log_likelihood(folder, piece.ids, piece.read) for piece in pieces]
    for tokens in (64, 8_192):
        found = log_likelihoods(model, pieces, tokens)
        assert [total for total, _ in found] == pytest.approx(expected, abs=1e-4)
        assert [count for _, count in found] == [len(piece.ids) - piece.read for piece in pieces]


def test_the_loss_of_a_text_and_its_bits_a_byte(trained: tuple[Workspace, Path]) -> None:
    _, folder = trained
    model = open_text_model(folder, "cpu")
    text = "3 green bottles"
    ids = [model.tokenizer.eos_id, *model.tokenizer.encode(text)]
    total = -hf_log_likelihood(folder, ids, 1)
    found = measured(folder, [TextRecord(text=text)])
    assert found["loss"] == pytest.approx(total / (len(ids) - 1), abs=1e-4)
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))
    assert found["bits_per_byte"] == pytest.approx(total / len(text.encode()) / math.log(2), abs=1e-4)


def test_only_what_the_assistant_says_counts_in_a_conversation(trained: tuple[Workspace, Path]) -> None:
    _, folder = trained
    short = [Message("user", "a"), Message("assistant", "b")]
    one = measured(folder, [ChatRecord(messages=short)], template="raw")
    assert one.keys() == {"loss", "perplexity", "bits_per_byte"}
    two = measured(folder, [ChatRecord(messages=short), ChatRecord(messages=short[:1])], template="raw")
    assert two == pytest.approx(one)


@pytest.mark.parametrize(
    ("messages", "tokens", "size"),
    [
        ([Message("assistant", "yes", train=False), Message("user", "a"), Message("assistant", "c")], 2, 1),
        ([Message("user", "a"), Message("assistant", "b" * 40)], 15, 15),
    ],
)
def test_bits_a_byte_are_over_the_bytes_that_were_predicted(
    trained: tuple[Workspace, Path], messages: list[Message], tokens: int, size: int
) -> None:
    """Not over those of turns that are left out, or stand beyond the context, which is 16 tokens here."""
    found = measured(trained[1], [ChatRecord(messages=messages)], template="raw")
    assert found["bits_per_byte"] == pytest.approx(found["loss"] * tokens / size / math.log(2))


def test_an_answer_without_a_byte_has_no_bits_a_byte(trained: tuple[Workspace, Path]) -> None:
    empty = [Message("user", "a"), Message("assistant", "")]
    assert measured(trained[1], [ChatRecord(messages=empty)], template="raw").keys() == {"loss", "perplexity"}


def test_a_long_answer_leaves_half_the_context_to_the_prompt_and_a_cut_is_told(
    trained: tuple[Workspace, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def noted(model: Any, prompts: list[list[int]], sampling: Sampling, **more: Any) -> list[list[int]]:
        tokenizer = open_text_model(trained[1], "cpu").tokenizer
        seen.extend(tokenizer.decode(ids) for ids in prompts)
        return generate(model, prompts, sampling, **more)

    monkeypatch.setattr("stages.evaluate.generate", noted)
    records = [PromptRecord(messages=[Message("user", said)], answer="1") for said in ("abc", "0123456789")]
    row = evaluate(trained[1], records, Evaluate(max_new_tokens=64, template="raw"), "cpu", lambda done, total: None)
    assert seen == ["abc\n", "3456789\n"]
    assert row.note == "1 prompts exceed 8 tokens and are asked by their ends."


def test_a_choice_is_the_likeliest_option(trained: tuple[Workspace, Path]) -> None:
    _, folder = trained
    model = open_text_model(folder, "cpu")
    options = ["bottles", "zzzzzz", "q"]
    totals = []
    for option in options:
        start = [model.tokenizer.eos_id, *model.tokenizer.encode("5 green")]
        ids = model.tokenizer.encode(" " + option)
        start = start[-max(1, model.context - len(ids)) :]
        totals.append(hf_log_likelihood(folder, [*start, *ids], len(start)))
    best = totals.index(max(totals))
    per_byte = [total / len(option) for total, option in zip(totals, options, strict=True)]
    records = [LabelledRecord(task="choice", texts=["5 green", *options], label=str(label)) for label in range(3)]
    found = measured(folder, [*records, LabelledRecord(task="classify", texts=["x"], label="y")])
    assert found == {"choice": pytest.approx(1 / 3), "choice_per_byte": pytest.approx(1 / 3)}
    assert measured(folder, records[best : best + 1])["choice"] == 1.0
    winner = per_byte.index(max(per_byte))
    assert measured(folder, records[winner : winner + 1])["choice_per_byte"] == 1.0


@pytest.mark.parametrize(
    ("answer", "text", "match", "right"),
    [
        ("Paris", " paris. ", "exact", True),
        ("Paris", "It is Paris.", "exact", False),
        ("Paris", "It is Paris.", "contains", True),
        ("1,024", "So the total is 1024.", "number", True),
        ("12", "12 or 13", "number", False),
        ("#### 72", "Natalia sold 72.0 clips", "auto", True),
        ("yes", "Yes!", "auto", True),
        ("", "", "exact", True),
        ("7", "none", "number", False),
    ],
)
def test_an_answer_is_right_by_the_rule(answer: str, text: str, match: str, right: bool) -> None:
    assert is_right(PromptRecord(messages=[], answer=answer), text, match) is right


def test_the_worlds_questions_are_judged_by_the_worlds_rule() -> None:
    record = PromptRecord(messages=[], answer="Ivren", meta={"lead": "The capital of Jorvia is", "answer": "Ivren"})
    assert is_right(record, "The capital of Jorvia is Ivren.", "auto")
    assert not is_right(record, "Not Ivren", "auto")


def test_a_run_measures_every_checkpoint_on_the_same_records(trained: tuple[Workspace, Path]) -> None:
    workspace, _ = trained
    first, last = (f"small@{checkpoint.step}" for checkpoint in list_checkpoints(find_run(workspace, "small"))[-2:])
    settings = {"max_records": 3}
    run = finish(runs.launch(workspace, "evaluate", "looked", settings, dataset="rhymes", checkpoints=[first, last]))
    found = read_evaluation(run)
    assert [row.checkpoint for row in found.rows] == [first, last]
    assert found.rows[1].figures["loss"] < found.rows[0].figures["loss"]
    rows = [msgspec.json.decode(line) for line in run.metrics.read_bytes().splitlines()]
    assert [row["eval/loss"] for row in rows] == [row.figures["loss"] for row in found.rows]
    assert run.state().result["checkpoints"] == 2


def test_what_cannot_be_measured_is_refused_in_a_sentence(trained: tuple[Workspace, Path]) -> None:
    _, folder = trained
    with pytest.raises(UserError, match="no multiple choice"):
        measured(folder, [LabelledRecord(task="classify", texts=["x"], label="y")])
    with pytest.raises(UserError, match="nothing to predict"):
        measured(folder, [ChatRecord(messages=[Message("user", "a")])], template="raw")
