"""A record in full as pieces of styled text: what is said by whom, ranks, labels, and what else is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec

from stages.store.records import (
    ChatRecord,
    LabelledRecord,
    Message,
    PreferenceRecord,
    PromptRecord,
    Record,
    TextRecord,
)


class Piece(NamedTuple):
    """Text with what it is: heading, note, a role, rank, label, or text of the record itself."""

    text: str
    style: str


def pieces(record: Record, count: Callable[[str], str] = lambda text: "") -> Iterator[Piece]:
    """The whole record. `count` says something about a text, such as its tokens, for the line above it."""
    match record:
        case TextRecord():
            yield from _told(count(record.text))
            yield Piece(f"{record.text}\n\n", "text")
        case ChatRecord():
            yield from _turns(record.messages, count)
        case PreferenceRecord():
            yield from _turns(record.messages, count)
            scores = record.scores or []
            order = sorted(range(len(record.completions)), key=lambda at: record.ranks[at : at + 1])
            for at in order:
                rank = f"rank {record.ranks[at]}" if at < len(record.ranks) else "no rank"
                score = f"  score {scores[at]:g}" if at < len(scores) else ""
                yield Piece(f"{rank}  completion {at + 1}{score}{_after(count(record.completions[at]))}\n", "rank")
                yield Piece(f"{record.completions[at]}\n\n", "text")
            yield from _fact("annotator", record.annotator)
        case PromptRecord():
            yield from _turns(record.messages, count)
            if record.answer is not None:
                yield Piece(f"answer{_after(count(record.answer))}\n", "label")
                yield Piece(f"{record.answer}\n\n", "text")
        case LabelledRecord():
            yield from _labelled(record, count)
    yield from _fact("source", record.source)
    for name, value in record.meta.items():
        yield from _fact(name, value if isinstance(value, str) else msgspec.json.encode(value).decode())


def _turns(messages: list[Message], count: Callable[[str], str]) -> Iterator[Piece]:
    for message in messages:
        learnt = {None: "", True: "  learnt", False: "  not learnt"}[message.train]
        yield Piece(f"{message.role}{learnt}{_after(count(message.content))}\n", message.role)
        yield Piece(f"{message.content}\n\n", "text")


def _labelled(record: LabelledRecord, count: Callable[[str], str]) -> Iterator[Piece]:
    yield Piece(f"{record.task}", "heading")
    if record.label is not None:
        yield Piece(f"  {record.label}", "label")
    yield Piece("\n\n", "note")
    if record.labels is not None:
        for number, text in enumerate(record.texts):
            label = record.labels[number] if number < len(record.labels) else "no label"
            yield Piece(text, "text")
            yield Piece(f" {label}\n", "label")
        yield Piece("\n", "note")
        return
    names = {"pair": ("first", "second"), "choice": ("question",)}.get(record.task, ("text",))
    for number, text in enumerate(record.texts):
        right = record.task == "choice" and number and str(number - 1) == record.label
        name = names[number] if number < len(names) else f"option {number - 1}{'  right' if right else ''}"
        yield Piece(f"{name}{_after(count(text))}\n", "rank" if right else "heading")
        yield Piece(f"{text}\n\n", "text")


def _fact(name: str, value: Any) -> Iterator[Piece]:
    if value not in ("", None):
        yield Piece(f"{name}  {value}\n", "note")


def _told(text: str) -> Iterator[Piece]:
    if text:
        yield Piece(f"{text}\n", "note")


def _after(text: str) -> str:
    return f"  {text}" if text else ""
