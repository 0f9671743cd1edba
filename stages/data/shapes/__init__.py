"""Shapes: which way of writing records a file follows, found from a sample of its rows, and the records of a row.

A shape is chosen for a whole file. The first of `SHAPES` that most of the sample fits wins, so they stand from the most
telling to the least; where none fits most of it, the one that fits the largest part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from stages.data.shapes import chat, labelled, openassistant, preference, prompts, ranking_rows, text
from stages.data.shapes.base import Fields, Row, Shape, Unfit, named
from stages.store.datasets import Kind
from stages.store.records import ChatRecord, Message, PreferenceRecord, PromptRecord, Record

__all__ = ["GUESS", "SHAPES", "Detection", "Fields", "Row", "Shape", "Unfit", "detect", "named", "read_row", "renamed"]

SHAPES: tuple[Shape, ...] = (
    *ranking_rows.SHAPES,
    *preference.SHAPES,
    *labelled.SHAPES,
    *openassistant.SHAPES,
    *chat.SHAPES,
    *prompts.SHAPES,
    *chat.LATE,
    *labelled.LATE,
    *prompts.LATE,
    *text.SHAPES,
)

GUESS = text.SHAPES[-1]
"""The shape that any row with a single text fits."""

CONVERTED: dict[Kind, tuple[Kind, ...]] = {
    "prompts": ("chat", "preference"),
    "chat": ("preference", "prompts"),
    "text": (),
    "preference": (),
    "labelled": (),
}
"""Kinds whose records can be made into this one, when it is asked for."""


class Detection(NamedTuple):
    """What a sample was found to be."""

    shape: Shape
    certainty: float
    """The share of the sampled rows that give records."""
    kind: Kind
    """What the records become; the shape's own kind unless another was asked for."""


def detect(rows: Sequence[Row], kind: Kind | None = None) -> Detection | None:
    """The shape of these rows; only one whose records can be of `kind`, when it is given. None when no row fits any."""
    kinds = tuple(CONVERTED) if kind is None else (kind, *CONVERTED[kind])
    counts = [(sum(map(shape.fits, rows)), shape) for shape in SHAPES if shape.kind in kinds]
    best = max(count for count, _ in counts)
    if best == 0:
        return None
    enough = min(best, len(rows) // 2 + 1)
    shape = next(shape for count, shape in counts if count >= enough)
    return Detection(shape, _certainty(shape, rows, kind or shape.kind), kind or shape.kind)


def _certainty(shape: Shape, rows: Sequence[Row], kind: Kind) -> float:
    good = 0
    for row in rows:
        try:
            good += bool(read_row(shape, kind, row, ""))
        except Unfit:
            continue
    return good / len(rows)


def read_row(shape: Shape, kind: Kind, row: Row, label: str) -> list[Record]:
    """The records of a row; what the shape leaves of it becomes their meta. Raises Unfit.

    `label` says where the row comes from, unless it says so itself under `source`.
    """
    fields = Fields(row)
    records = shape.read(fields)
    rest = fields.rest()
    source = rest.get("source")
    if isinstance(source, str) and source:
        label = rest.pop("source")
    inner = rest.pop("meta", {})
    meta = {**rest, **(inner if isinstance(inner, dict) else {"meta": inner})}
    if too_deep(meta):
        raise Unfit("", "This JSON is nested too deeply.")
    return [
        as_kind(msgspec.structs.replace(record, source=label, meta={**meta, **record.meta}), kind) for record in records
    ]


def as_kind(record: Record, kind: Kind) -> Record:
    """The record as one of another kind, where its own holds what that needs (`CONVERTED`). Raises Unfit."""
    origin: dict[str, Any] = {"source": record.source, "meta": record.meta}
    match kind, record:
        case "prompts", ChatRecord():
            last = max(n for n, message in enumerate(record.messages) if message.role == "assistant")
            if last == 0:
                raise Unfit("messages", "There is no prompt before the answer.")
            return PromptRecord(messages=record.messages[:last], answer=record.messages[last].content, **origin)
        case "prompts", PreferenceRecord():
            return PromptRecord(messages=record.messages, **origin)
        case "chat", PreferenceRecord():
            best = record.completions[record.ranks.index(min(record.ranks))]
            return ChatRecord(messages=[*record.messages, Message("assistant", best)], **origin)
        case "chat", PromptRecord():
            if record.answer is None:
                raise Unfit("answer", "This prompt has no answer.")
            return ChatRecord(messages=[*record.messages, Message("assistant", record.answer)], **origin)
    return record


def renamed(row: Row, mapping: dict[str, str]) -> Row:
    """The row with our names for the fields that `mapping` (ours to theirs) names; `a.b` is b within the object a."""
    if not mapping:
        return row
    gone = set(mapping.values())
    found = {ours: _at(row, theirs) for ours, theirs in mapping.items()}
    return {**{name: value for name, value in row.items() if name not in gone}, **found}


def _at(row: Row, path: str) -> object:
    if path in row:
        return row[path]
    value: object = row
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


DEEPEST = 64
"""Levels of lists and objects in a meta. What can be written must be readable, from any depth of calls."""


def too_deep(value: object) -> bool:
    """Whether lists and objects stand more than DEEPEST levels within each other; without recursion."""
    level = [value]
    for _ in range(DEEPEST):
        inner = (part.values() if isinstance(part, dict) else part for part in level if isinstance(part, dict | list))
        level = [part for parts in inner for part in parts]
        if not level:
            return False
    return True
