"""A record of any kind, given as plain values, in lines of a role and a text, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def record_lines(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What a record says, in order, each text with its role: user, assistant, rank 1, label and so on."""
    if "text" in record:
        yield "text", record["text"]
    for message in record.get("messages", []):
        yield message["role"], message["content"]
    scores = record.get("scores") or [None] * len(record.get("completions", []))
    for rank, score, text in zip(record.get("ranks", []), scores, record.get("completions", []), strict=False):
        yield f"rank {rank}" + (f" ({score:g})" if score is not None else ""), text
    if record.get("answer") is not None:
        yield "answer", record["answer"]
    if "task" in record:
        yield from _labelled(record)


def _labelled(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    task, texts = record["task"], record["texts"]
    if task == "tokens":
        yield "words", " ".join(f"{word}/{label}" for word, label in zip(texts, record["labels"], strict=False))
        return
    for number, text in enumerate(texts):
        yield _name(task, number, len(texts)), text
    yield "label", record["label"]


def _name(task: str, number: int, count: int) -> str:
    if task == "choice":
        return "question" if number == 0 else f"option {number - 1}"
    return "text" if count == 1 else f"text {number + 1}"
