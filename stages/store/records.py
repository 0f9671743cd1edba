"""The canonical records of the five kinds, as they stand in a dataset and as they travel between processes.

A struct a kind; the Parquet schema in `stages/data/records.py` has the same fields. `meta` holds whatever else a source
said of the record. Digests are over these structs, so that equal records are equal however they were written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from stages.store.datasets import Kind

Role = Literal["system", "user", "assistant", "tool"]
Task = Literal["classify", "pair", "choice", "tokens"]
Part = Literal["sft", "reward", "policy", "eval"]

PARTS: tuple[tuple[Part, int], ...] = (("sft", 50), ("reward", 20), ("policy", 20), ("eval", 10))
"""The parts of a prompt set, with their shares in percent (`part_of`)."""


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One turn of a conversation. `train` says whether an assistant's turn is learnt; None: as the stage decides."""

    role: Role
    content: str
    train: bool | None = None


class TextRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A document."""

    text: str
    source: str = ""
    """Where the text comes from, without the folders above what the user named."""
    meta: dict[str, Any] = {}


class ChatRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation. A prompt with its answer is one of two messages."""

    messages: list[Message]
    source: str = ""
    meta: dict[str, Any] = {}


class PreferenceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Completions of one prompt with their ranks: 1 is best, ties are equal. `scores` are ratings, higher is better."""

    messages: list[Message]
    completions: list[str]
    ranks: list[int]
    scores: list[float] | None = None
    annotator: str = ""
    source: str = ""
    meta: dict[str, Any] = {}


class PromptRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a model is asked, and where it is known, the answer."""

    messages: list[Message]
    answer: str | None = None
    source: str = ""
    meta: dict[str, Any] = {}


class LabelledRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Texts with what is to be said of them.

    classify: one text, `label`. pair: two texts, `label`. choice: a question and its options, `label` the number of the
    right option from 0, as text. tokens: the words of a text, `labels` one for each.
    """

    task: Task
    texts: list[str]
    label: str | None = None
    labels: list[str] | None = None
    source: str = ""
    meta: dict[str, Any] = {}


Record = TextRecord | ChatRecord | PreferenceRecord | PromptRecord | LabelledRecord

KINDS: dict[Kind, type[Record]] = {
    "text": TextRecord,
    "chat": ChatRecord,
    "preference": PreferenceRecord,
    "prompts": PromptRecord,
    "labelled": LabelledRecord,
}


def texts_in(record: Record) -> list[str]:
    """Every text of a record that a person would read as its content, in order: not its source, not its meta."""
    match record:
        case TextRecord():
            return [record.text]
        case ChatRecord():
            return [message.content for message in record.messages]
        case PreferenceRecord():
            return [*(message.content for message in record.messages), *record.completions]
        case PromptRecord():
            asked = [message.content for message in record.messages]
            return asked if record.answer is None else [*asked, record.answer]
        case LabelledRecord():
            return record.texts


def part_of(messages: Sequence[Message], meta: Mapping[str, Any] | None = None) -> Part:
    """The one part of a prompt set that this prompt belongs to: that which its record's `meta` names.

    Else by hash of what is asked: the same in every dataset.
    """
    named: Part | None = next((part for part, _ in PARTS if meta and meta.get("part") == part), None)
    if named is not None:
        return named
    digest = hashlib.sha256(msgspec.json.encode([(m.role, m.content) for m in messages])).digest()
    place = int.from_bytes(digest[:8], "big") % 100
    for part, share in PARTS:
        if place < share:
            return part
        place -= share
    raise AssertionError("the shares of PARTS add up to 100")
