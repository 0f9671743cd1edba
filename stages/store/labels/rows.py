"""Between rows of labels.db and what they stand for."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec

from stages.store.labels.records import Label

COLUMNS = (
    "id, kind, set_id, place, prompt, annotator, shown, ranks, scores, completion, verdict, note, origin, seconds, "
    "repeats, supersedes, settles, created"
)


def label_of(row: tuple[Any, ...]) -> Label:
    """The label in a row of COLUMNS."""
    id_, kind, set_id, place, prompt, annotator, shown, ranks, scores, *rest = row
    completion, verdict, note, origin, seconds, repeats, supersedes, settles, created = rest
    return Label(
        id=id_,
        kind=kind,
        set_id=set_id,
        place=place,
        prompt_id=prompt,
        annotator=annotator,
        shown=msgspec.json.decode(shown),
        ranks=None if ranks is None else msgspec.json.decode(ranks),
        scores=None if scores is None else msgspec.json.decode(scores),
        completion=completion,
        verdict=verdict,
        note=note,
        origin=origin,
        seconds=seconds,
        repeats=repeats,
        supersedes=supersedes,
        settles=None if settles is None else msgspec.json.decode(settles),
        created=created,
    )


def insert_label(db: sqlite3.Connection, label: Label) -> Label:
    """Append a label; it comes back with its id."""
    values = (
        label.kind,
        label.set_id,
        label.place,
        label.prompt_id,
        label.annotator,
        as_json(label.shown),
        None if label.ranks is None else as_json(label.ranks),
        None if label.scores is None else as_json(label.scores),
        label.completion,
        label.verdict,
        label.note,
        label.origin,
        label.seconds,
        label.repeats,
        label.supersedes,
        None if label.settles is None else as_json(label.settles),
        label.created,
    )
    marks = ", ".join("?" * len(values))
    columns = COLUMNS.removeprefix("id, ")
    id_ = new_id(db.execute(f"INSERT INTO labels ({columns}) VALUES ({marks})", values))
    return msgspec.structs.replace(label, id=id_)


def as_json(value: Any) -> str:
    """A value as a column of text holds it."""
    return msgspec.json.encode(value).decode()


def new_id(cursor: sqlite3.Cursor) -> int:
    """The id of the row that was just inserted."""
    assert cursor.lastrowid is not None
    return cursor.lastrowid
