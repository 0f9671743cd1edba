"""Rankings as tables hold them: a row for each completion, those of one ranking one after another.

    ranking, messages or prompt, completion, rank, and if there are: score, annotator, source, meta

This is what `labels export --format csv` writes; messages and meta are JSON within their cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from stages.data.shapes.base import Fields, Row, Shape, Unfit, text_of
from stages.data.shapes.preference import canonical, number_of
from stages.data.shapes.turns import read_turns
from stages.store.records import Message, Record

GROUPED = "rows"
"""The field of a grouped row under which the rows of its completions stand; the others are columns they share."""


def is_ranking_row(row: Row) -> bool:
    """Whether a row is one completion of a ranking."""
    return {"ranking", "completion", "rank"} <= row.keys() and ("messages" in row or "prompt" in row)


def as_rankings(rows: Iterable[tuple[int, Row]]) -> Iterator[tuple[int, Row]]:
    """Rows that are rankings from rows that are completions, with the number of the row in which each begins."""
    held: list[Row] = []
    first = 0
    for number, row in rows:
        if held and held[0].get("ranking") != row.get("ranking"):
            yield first, _grouped(held)
            held = []
        first = first if held else number
        held.append(row)
    if held:
        yield first, _grouped(held)


def _grouped(rows: list[Row]) -> Row:
    shared = {name: value for name, value in rows[0].items() if name not in OWN and value not in (None, "")}
    return {**shared, GROUPED: rows}


OWN = ("ranking", "completion", "rank", "score")
"""Columns that say something of the one completion."""


def _fits(row: Row) -> bool:
    rows = row.get(GROUPED)
    return isinstance(rows, list) and bool(rows) and isinstance(rows[0], dict) and is_ranking_row(rows[0])


def _read(fields: Fields) -> list[Record]:
    rows: list[Row] = fields.needed(GROUPED)
    given = [row.get("score") for row in rows]
    scores = None if all(score in (None, "") for score in given) else [number_of(score, "score") for score in given]
    ranks = [_whole(row.get("rank"), "rank") for row in rows]
    texts = [text_of(row.get("completion"), "completion") for row in rows]
    meta = fields.take("meta")
    record = canonical(_messages(fields), texts, ranks, scores, fields.optional("annotator"))
    if meta is None:
        return [record]
    inner = _json(meta, "meta")
    return [msgspec.structs.replace(record, meta=inner if isinstance(inner, dict) else {"meta": inner})]


def _messages(fields: Fields) -> list[Message]:
    """The conversation, written as JSON; or a prompt that is plain text."""
    cell = fields.take("messages")
    if cell is None:
        if not (asked := fields.optional("prompt")):
            raise Unfit("prompt", "This ranking has no prompt.")
        return [Message("user", asked)]
    return read_turns(_json(cell, "messages"), "messages")


def _json(cell: Any, field: str) -> Any:
    try:
        return msgspec.json.decode(cell) if isinstance(cell, str) else cell
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unfit(field, "This is not JSON.") from error


def _whole(cell: Any, field: str) -> int:
    number = number_of(cell, field)
    if not number.is_integer():
        raise Unfit(field, "This is not a whole number.")
    return int(number)


SHAPES = (Shape("rankings by rows", "preference", "ranking, messages, completion, rank", _fits, _read),)
