"""Documents: rows whose one field is a text."""

from __future__ import annotations

from stages.data.shapes.base import Fields, Row, Shape, Unfit, has_text, text_of
from stages.store.records import Record, TextRecord

NAMES = ("text", "content", "document", "body", "article", "passage", "story", "code")


def _read(fields: Fields) -> list[Record]:
    return [TextRecord(text=fields.text(*NAMES))]


def _is_single(row: Row) -> bool:
    return sum(isinstance(value, str) for value in row.values()) == 1


def _read_single(fields: Fields) -> list[Record]:
    texts = [name for name, value in fields.rest().items() if isinstance(value, str)]
    if len(texts) != 1:
        raise Unfit("text", "There is not one field with text, and none of them is called text.")
    return [TextRecord(text=text_of(fields.take(texts[0]), texts[0]))]


SHAPES = (
    Shape("documents", "text", "text", lambda row: has_text(row, *NAMES), _read),
    Shape("a single column of text", "text", "any one field of text", _is_single, _read_single),
)
