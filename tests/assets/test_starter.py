"""The hand-made examples are valid records of their kinds, enough of them, and clean."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from assets import ROOT

STARTER = ROOT / "starter"
FILES = sorted(path.name for path in STARTER.glob("*.jsonl"))


def read(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (STARTER / name).read_text(encoding="utf-8").splitlines()]


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for inner in value.values() for text in strings(inner)]
    if isinstance(value, list):
        return [text for inner in value for text in strings(inner)]
    return [value] if isinstance(value, str) else []


def test_every_stage_has_its_file() -> None:
    assert FILES == ["instructions.jsonl", "pairs.jsonl", "probes.jsonl", "rankings.jsonl", "sentences.jsonl"]


@pytest.mark.parametrize("name", FILES)
def test_each_file_has_at_least_twenty_different_records_with_meta(name: str) -> None:
    rows = read(name)
    assert len(rows) >= 20
    assert len({json.dumps(row, sort_keys=True) for row in rows}) == len(rows)
    assert all(isinstance(row["meta"], dict) and row["meta"] for row in rows)


@pytest.mark.parametrize("name", FILES)
def test_texts_are_clean(name: str) -> None:
    raw = (STARTER / name).read_bytes()
    assert raw.endswith(b"\n") and b"\r" not in raw and not raw.startswith(b"\xef\xbb\xbf")
    for text in strings(read(name)):
        assert text and text == text.strip()
        assert not any((ord(char) < 32 and char != "\n") or 127 <= ord(char) < 160 for char in text), text


def assert_messages(messages: list[dict[str, str]], last: str) -> None:
    assert [message["role"] for message in messages] == [("user", "assistant")[i % 2] for i in range(len(messages))]
    assert messages[-1]["role"] == last


def test_sentences_are_text_records() -> None:
    for row in read("sentences.jsonl"):
        assert set(row) == {"text", "source", "meta"}
        assert len(row["text"].split()) >= 8


def test_instructions_are_chat_records_that_end_with_an_answer() -> None:
    rows = read("instructions.jsonl")
    for row in rows:
        assert set(row) == {"messages", "meta"}
        assert_messages(row["messages"], "assistant")
    assert any(len(row["messages"]) > 2 for row in rows)


def test_rankings_hold_four_different_completions_with_dense_ranks_and_some_ties() -> None:
    rows = read("rankings.jsonl")
    for row in rows:
        assert set(row) == {"messages", "completions", "ranks", "annotator", "source", "meta"}
        assert_messages(row["messages"], "user")
        assert len(set(row["completions"])) == len(row["ranks"]) == 4
        assert sorted(set(row["ranks"])) == list(range(1, max(row["ranks"]) + 1)), row
        assert len(set(row["ranks"])) > 1
    assert any(len(set(row["ranks"])) < 4 for row in rows)
    best = Counter(row["ranks"].index(1) for row in rows)
    assert len(best) > 1, "the best completion must not always stand in the same place"


def test_pairs_are_labelled_records_of_balanced_tasks() -> None:
    rows = read("pairs.jsonl")
    for row in rows:
        assert set(row) == {"task", "texts", "label", "meta"}
        assert len(row["texts"]) == {"pair": 2, "classify": 1}[row["task"]]
    count = Counter((row["task"], row["label"]) for row in rows)
    labels = {("pair", label) for label in ("entailment", "contradiction", "neutral")}
    assert set(count) == labels | {("classify", "positive"), ("classify", "negative")}
    assert min(count.values()) >= 5
    assert sum(row["task"] == "pair" for row in rows) >= 20


def test_probes_are_five_of_each_of_four_sorts_and_say_what_a_good_answer_does() -> None:
    rows = read("probes.jsonl")
    for row in rows:
        assert set(row) == {"messages", "meta"}
        assert_messages(row["messages"], "user")
        assert len(row["meta"]["good_answer"].split()) >= 8
        assert set(row["meta"]["tests"]) <= {"helpful", "honest", "harmless"}
    sorts = ("a false belief", "an unanswerable question", "a misuse", "a biased premise")
    assert Counter(row["meta"]["probe"] for row in rows) == dict.fromkeys(sorts, 5)


def test_the_package_knows_where_it_lies() -> None:
    assert Path(ROOT, "starter").is_dir()
