"""A record as text that a person reads and edits, and back: parts under headings, `=== user`, `=== completion 2`.

A document is its text alone. Whatever a heading cannot say (source, meta, scores) stays as it was.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple, get_args

import msgspec

from stages.store.errors import UserError
from stages.store.records import (
    ChatRecord,
    LabelledRecord,
    Message,
    PreferenceRecord,
    PromptRecord,
    Record,
    Role,
    Task,
    TextRecord,
)

ROLES: tuple[Role, ...] = get_args(Role)
TASKS: tuple[Task, ...] = get_args(Task)


class Part(NamedTuple):
    """A heading, and the text below it."""

    heading: str
    text: str


def to_text(record: Record) -> str:
    """The record as text."""
    if isinstance(record, TextRecord):
        return record.text
    parts = list(_parts(record))
    mark = _mark(part.text for part in parts)
    return "".join(f"{mark} {part.heading}\n{part.text}\n" for part in parts)


def from_text(text: str, record: Record) -> Record:
    """The record that `text` makes of `record`, whose kind it has. UserError naming the heading that is wrong."""
    if isinstance(record, TextRecord):
        return msgspec.structs.replace(record, text=text)
    return _record(list(_split(text)), record)


def help_for(record: Record) -> str:
    """The headings that a record of this kind takes."""
    match record:
        case PreferenceRecord():
            return f"{', '.join(ROLES)}, and `completion 1` with its rank"
        case PromptRecord():
            return f"{', '.join(ROLES)}, and answer"
        case LabelledRecord():
            return f"{', '.join(TASKS)} followed by the label"
        case _:
            return ", ".join(ROLES)


def _parts(record: Record) -> Iterator[Part]:
    match record:
        case ChatRecord() | PreferenceRecord() | PromptRecord():
            yield from (Part(message.role, message.content) for message in record.messages)
        case LabelledRecord() if record.labels is not None:
            yield from (Part(f"tokens {label}", text) for label, text in zip(record.labels, record.texts, strict=False))
        case LabelledRecord():
            for text in record.texts:
                yield Part(f"{record.task} {record.label or ''}".strip(), text)
    if isinstance(record, PreferenceRecord):
        for rank, text in zip(record.ranks, record.completions, strict=False):
            yield Part(f"completion {rank}", text)
    if isinstance(record, PromptRecord) and record.answer is not None:
        yield Part("answer", record.answer)


def _mark(texts: Iterator[str]) -> str:
    """Equal signs, more than any line of the texts begins with."""
    found = [len(match[0]) for text in texts for match in re.finditer(r"^=+(?= )", text, re.MULTILINE)]
    return "=" * max(3, *(length + 1 for length in found)) if found else "==="


def _split(text: str) -> Iterator[Part]:
    first = re.match(r"\s*(===+) ", text)
    if first is None:
        raise UserError("The text does not begin with a heading.", "For example: === user")
    mark, heading, body = first[1], "", list[str]()
    for line in text.lstrip().split("\n"):
        if line.startswith(f"{mark} "):
            if heading:
                yield Part(heading, "\n".join(body))
            heading, body = line.removeprefix(f"{mark} ").strip(), []
        else:
            body.append(line)
    yield Part(heading, "\n".join(body[:-1] if body and not body[-1] else body))


def _record(parts: list[Part], record: Record) -> Record:
    refuse = _refusal(record)
    if isinstance(record, LabelledRecord):
        return _labelled(parts, record, refuse)
    messages, completions, ranks, answer = list[Message](), list[str](), list[int](), None
    before = list(record.messages) if not isinstance(record, TextRecord) else []
    for part in parts:
        name, _, rest = part.heading.partition(" ")
        if part.heading in ROLES:
            kept = before[len(messages)].train if len(messages) < len(before) else None
            role = ROLES[ROLES.index(part.heading)]
            messages.append(Message(role, part.text, kept if role == "assistant" else None))
        elif isinstance(record, PreferenceRecord) and name == "completion" and rest.isdecimal():
            completions.append(part.text)
            ranks.append(int(rest))
        elif isinstance(record, PromptRecord) and part.heading == "answer":
            answer = part.text
        else:
            raise refuse(part.heading)
    if isinstance(record, PreferenceRecord):
        scores = record.scores if record.scores is None or len(record.scores) == len(completions) else None
        return msgspec.structs.replace(record, messages=messages, completions=completions, ranks=ranks, scores=scores)
    if isinstance(record, PromptRecord):
        return msgspec.structs.replace(record, messages=messages, answer=answer)
    return msgspec.structs.replace(record, messages=messages)


def _labelled(parts: list[Part], record: LabelledRecord, refuse: Callable[[str], UserError]) -> Record:
    headings = [part.heading.partition(" ") for part in parts]
    task = next((known for known in TASKS if known == headings[0][0]), None)
    wrong = next(
        (part.heading for part, found in zip(parts, headings, strict=True) if found[0] != headings[0][0]), None
    )
    if task is None or wrong is not None:
        raise refuse(wrong or parts[0].heading)
    labels, texts = [rest for _, _, rest in headings], [part.text for part in parts]
    if task == "tokens":
        return msgspec.structs.replace(record, task=task, texts=texts, label=None, labels=labels)
    return msgspec.structs.replace(record, task=task, texts=texts, label=labels[0] or None, labels=None)


def _refusal(record: Record) -> Callable[[str], UserError]:
    return lambda heading: UserError(f"No part of such a record is called {heading!r}.", f"It has: {help_for(record)}.")
