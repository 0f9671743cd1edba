"""Training a tokenizer as a run: what it measures, that it can be stopped, and that it is whole or absent."""

import json
from pathlib import Path

import pytest

from stages.data.records import read_texts
from stages.data.tokenizer import TextTokenizer
from stages.store.datasets import find_dataset
from stages.store.tokenizers import find_tokenizer, list_tokenizers
from stages.store.workspace import Workspace
from stages.tokenizer import Sample, measure
from tests.stages.data.parts import dataset_of, real
from tests.stages.helpers import copy_of, ended, finish, wait_until
from workbench import runs


def test_a_trained_tokenizer_is_listed_with_what_was_measured(small_world: Workspace, tmp_path: Path) -> None:
    workspace = copy_of(small_world, tmp_path)
    run = finish(runs.launch(workspace, "tokenizer", "bpe", {"vocab_size": 270}, dataset="rhymes"))
    entry, dataset = find_tokenizer(workspace, "bpe"), find_dataset(workspace, "rhymes")
    result = run.state().result
    assert result["tokenizer"] == "bpe" and result["vocab_size"] == entry.info.vocab_size == 270
    assert entry.info.dataset_digest == dataset.info.digest and entry.info.run == run.id
    assert entry.info.special["pad"] != entry.info.special["eos"]
    tokenizer = TextTokenizer.load(entry.path)
    validation = "".join(read_texts(dataset, "val"))
    assert entry.info.bytes_per_token == pytest.approx(len(validation) / len(tokenizer.encode(validation)))
    assert entry.info.round_trips == entry.info.round_trip_checked == dataset.info.records["val"]


def test_bytes_have_one_byte_a_token(small_world: Workspace) -> None:
    info = find_tokenizer(small_world, "bytes").info
    assert info.type == "byte" and info.vocab_size == 260 and info.bytes_per_token == 1.0


def test_a_text_too_small_for_the_vocabulary_is_said(small_world: Workspace, tmp_path: Path) -> None:
    workspace = copy_of(small_world, tmp_path)
    run = finish(runs.launch(workspace, "tokenizer", "large", {"vocab_size": 50_000}, dataset="rhymes"))
    assert find_tokenizer(workspace, "large").info.vocab_size < 50_000
    why = "fewer than the 50,000 asked for: every word of the text is one token already"
    assert why in run.log.read_text()
    assert any(why in note for note in find_tokenizer(workspace, run.spec().name).info.notes)


def test_a_size_that_nobody_asked_for_is_told_as_a_fact(small_world: Workspace, tmp_path: Path) -> None:
    workspace = copy_of(small_world, tmp_path)
    run = finish(runs.launch(workspace, "tokenizer", "plain", {}, dataset="rhymes"))
    size = find_tokenizer(workspace, "plain").info.vocab_size
    assert size < 4_096
    told = f"The vocabulary has {size:,} tokens, all that this text gives: every word"
    assert told in run.log.read_text() and "warning" not in run.log.read_text()
    assert find_tokenizer(workspace, "plain").info.notes[0].startswith(told)
    assert not [event for event in run.events.read_text().splitlines() if "warning" in event]


def test_training_twice_gives_the_same_digest(small_world: Workspace, tmp_path: Path) -> None:
    workspace = copy_of(small_world, tmp_path)
    for name in ("one", "two"):
        finish(runs.launch(workspace, "tokenizer", name, {"vocab_size": 300}, dataset="rhymes"))
    assert find_tokenizer(workspace, "one").info.digest == find_tokenizer(workspace, "two").info.digest


def test_stopping_leaves_nothing(small_world: Workspace, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws").ensure()
    source = tmp_path / "words.txt"
    source.write_text("\n".join(f"{n * 7919 % 1_000_003:x}{n:x}word" for n in range(400_000)))
    finish(runs.launch(workspace, "build", "words", {"sources": [str(source)]}))
    run = runs.launch(workspace, "tokenizer", "slow", {"vocab_size": 100_000}, dataset="words")
    wait_until(lambda: run.state().phase in ("counting words", "merging"), what="training")
    runs.stop(run)
    wait_until(lambda: ended(run), seconds=30)
    assert run.status() == "stopped" and list_tokenizers(workspace) == []
    assert [path.name for path in workspace.tokenizers.iterdir() if path.is_dir()] == []


def test_a_dataset_that_was_replaced_is_refused(small_world: Workspace, tmp_path: Path) -> None:
    workspace = copy_of(small_world, tmp_path)
    run = finish(runs.launch(workspace, "tokenizer", "again", {"type": "byte"}, dataset="rhymes"))
    path = workspace.datasets / "rhymes" / "dataset.json"
    path.write_text(path.read_text().replace(find_dataset(workspace, "rhymes").info.digest, "other"))
    runs.start(run)
    wait_until(lambda: ended(run))
    error = run.state().error
    assert error is not None and "has been replaced" in error.message


def test_the_sample_is_taken_evenly_and_bounded(tmp_path: Path) -> None:
    texts = [f"{n:05}" for n in range(1_000)]
    dataset = dataset_of(tmp_path / "d", texts, ["x"])
    sample = Sample(dataset, 500)
    taken = list(sample)
    assert taken == texts[::10] and sample.done == sample.total == 500
    assert list(Sample(dataset, 1_000_000)) == texts


def test_a_broken_round_trip_is_counted(tmp_path: Path, small_world: Workspace) -> None:
    tokenizer = TextTokenizer.load(find_tokenizer(small_world, "bytes").path)
    dataset = dataset_of(tmp_path / "d", ["a"], ["same", "other"])

    class Forgetful(TextTokenizer):
        def decode(self, ids: object, *, skip_special: bool = True) -> str:
            return "same"

    tokenizer.__class__ = Forgetful
    assert measure(tokenizer, dataset)[1:] == (1, 2)


def test_books_in_other_scripts_come_back_exactly(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws").ensure()
    source = real("multilingual_books/wagahaiwa_nekodearu_ja.txt")
    finish(runs.launch(workspace, "build", "cat", {"sources": [str(source)], "split": "tail:0.1"}))
    finish(runs.launch(workspace, "tokenizer", "cat", {"vocab_size": 1_000}, dataset="cat"))
    info = find_tokenizer(workspace, "cat").info
    assert info.round_trips == info.round_trip_checked == 1
    assert info.bytes_per_token is not None and info.bytes_per_token > 2


def test_the_texts_of_conversations_are_learnt_from(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws").ensure()
    source = tmp_path / "talk.jsonl"
    turns = [{"role": "user", "content": "where is the harbour"}, {"role": "assistant", "content": "by the sea"}]
    rows = [{"messages": [{"role": "user", "content": f"and number {n}"}, turns[1], *turns]} for n in range(300)]
    source.write_text("\n".join(json.dumps(row) for row in rows))
    finish(runs.launch(workspace, "build", "talk", {"sources": [str(source)]}))
    finish(runs.launch(workspace, "tokenizer", "talk", {"vocab_size": 330}, dataset="talk"))
    entry = find_tokenizer(workspace, "talk")
    assert find_dataset(workspace, "talk").info.kind == "chat"
    assert len(TextTokenizer.load(entry.path).encode(" harbour")) == 1
    assert entry.info.sample == "all of the training text"


def test_a_share_is_taken_evenly_and_the_same_each_time(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path / "d", [f"{n:05}" for n in range(1_000)], ["x"])
    sample = Sample(dataset, 10**9, 0.3)
    taken = list(sample)
    assert len(taken) == 300 and taken == list(sample) and sample.done == 1_500
    assert {int(text) // 100 for text in taken} == set(range(10))
    assert sample.sentence.startswith("1,500 of 5,000 bytes")


def test_sentinels_that_leave_no_room_are_refused(small_world: Workspace, tmp_path: Path) -> None:
    workspace = copy_of(small_world, tmp_path)
    run = runs.launch(workspace, "tokenizer", "t", {"vocab_size": 300, "sentinels": 100}, dataset="rhymes")
    wait_until(lambda: ended(run))
    error = run.state().error
    assert error is not None and "260 entries at least" in error.message and list_tokenizers(workspace) != []
