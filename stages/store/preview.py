"""A record in one line, and a record cut to what a screen can show. No more of a text is looked at than is shown."""

from __future__ import annotations

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

Piece = tuple[str, str]
"""Text, and what it is: a role, or rank, label, text, note."""

LINE = 300
"""Characters of a line; of each text in it, what is left."""


def preview(record: Record) -> list[Piece]:
    """The beginning of a record as pieces of one line."""
    match record:
        case TextRecord():
            return [(record.text[:LINE], "text")]
        case ChatRecord():
            return _turns(record.messages)
        case PreferenceRecord():
            best = sorted(zip(record.ranks, record.completions, strict=False))
            ranked = [(f" {rank}. {text[: LINE // 3]}", "rank" if rank == 1 else "text") for rank, text in best[:4]]
            return [*_turns(record.messages[-1:]), *ranked]
        case PromptRecord():
            answer = [(f" = {record.answer[:LINE]}", "label")] if record.answer is not None else []
            return [*_turns(record.messages), *answer]
        case LabelledRecord():
            label = record.label if record.label is not None else " ".join((record.labels or [])[:20])
            return [(f"{label[:40]}  ", "label"), (" ¦ ".join(text[:LINE] for text in record.texts[:8])[:LINE], "text")]


def _turns(messages: list[Message]) -> list[Piece]:
    pieces, room = [], LINE
    for message in messages:
        if room <= 0:
            break
        pieces += [(f"{message.role} ", message.role), (f"{message.content[:room]}  ", "text")]
        room -= len(message.content)
    return pieces


def cut(record: Record, longest: int) -> tuple[Record, int]:
    """The record with no text longer than `longest` characters, and how many characters that leaves out."""
    missing = 0

    def short(text: str) -> str:
        nonlocal missing
        missing += max(0, len(text) - longest)
        return text[:longest]

    def turns(messages: list[Message]) -> list[Message]:
        return [msgspec.structs.replace(message, content=short(message.content)) for message in messages]

    match record:
        case TextRecord():
            return msgspec.structs.replace(record, text=short(record.text)), missing
        case ChatRecord():
            record = msgspec.structs.replace(record, messages=turns(record.messages))
        case PreferenceRecord():
            completions = [short(text) for text in record.completions]
            record = msgspec.structs.replace(record, messages=turns(record.messages), completions=completions)
        case PromptRecord():
            answer = short(record.answer) if record.answer is not None else None
            record = msgspec.structs.replace(record, messages=turns(record.messages), answer=answer)
        case LabelledRecord():
            record = msgspec.structs.replace(record, texts=[short(text) for text in record.texts])
    return record, missing
