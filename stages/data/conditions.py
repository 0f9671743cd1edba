"""Filters over records as people write them: `role:system length>500 source:wiki -"as an AI"`.

A condition is decided for a whole row group at once, from its columns. All conditions must hold; `-` turns one around.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages.store.datasets import Kind
from stages.store.errors import UserError

Mask = np.ndarray[Any, np.dtype[np.bool_]]

TEXTS: dict[Kind, tuple[str, ...]] = {
    "text": ("text",),
    "chat": ("messages",),
    "preference": ("messages", "completions"),
    "prompts": ("messages", "answer"),
    "labelled": ("texts",),
}
"""The columns of a kind that hold what people read."""

KEYS: dict[Kind, tuple[str, ...]] = {
    "text": ("source", "length"),
    "chat": ("source", "length", "role", "turns"),
    "preference": ("source", "length", "role", "turns", "annotator", "completions"),
    "prompts": ("source", "length", "role", "turns", "answer"),
    "labelled": ("source", "length", "label", "task"),
}
"""What can be asked of a kind, beside meta.NAME and words in its texts."""

NUMBERS = {"length", "turns", "completions"}
COMPARE: dict[str, Callable[[Any, int], Mask]] = {
    "<": np.less,
    ">": np.greater,
    "<=": np.less_equal,
    ">=": np.greater_equal,
    "=": np.equal,
}
_TERM = re.compile(r"(-?)(?:(meta\.[^:<>=]+|\w+)(:|<=|>=|<|>|=))?(.*)", re.DOTALL)


class Condition(NamedTuple):
    """One term of a filter. An empty `key` means the texts."""

    key: str
    compare: str
    value: str
    wanted: bool


def parse(text: str, kind: Kind) -> list[Condition]:
    """The conditions of a filter. UserError naming the term that makes no sense and what would."""
    try:
        terms = shlex.split(text)
    except ValueError as error:
        raise UserError("The filter has a quotation mark without its partner.", 'For example: "two words".') from error
    return [_condition(term, kind) for term in terms if term not in ("", "-")]


def holds(batch: pa.RecordBatch, kind: Kind, conditions: Sequence[Condition]) -> Mask:
    """For which records of a row group all conditions hold."""
    mask: Mask = np.ones(batch.num_rows, bool)
    for condition in conditions:
        mask &= _mask(batch, kind, condition) == condition.wanted
    return mask


def columns(kind: Kind, conditions: Sequence[Condition]) -> list[str]:
    """The columns that the conditions look at."""
    needed: set[str] = set()
    for condition in conditions:
        if condition.key in ("", "length"):
            needed |= {*TEXTS[kind]}
        elif condition.key in ("role", "turns"):
            needed.add("messages")
        elif condition.key == "label":
            needed |= {"label", "labels"}
        else:
            needed.add(condition.key.partition(".")[0])
    return sorted(needed)


def contains(batch: pa.RecordBatch, kind: Kind, text: str) -> Mask:
    """Which records have `text` in what people read of them, whatever the case."""
    mask: Mask = np.zeros(batch.num_rows, bool)
    for column in TEXTS[kind]:
        texts, rows = _texts(batch.column(column))
        mask[rows[_found(texts, text)]] = True
    return mask


def lengths(batch: pa.RecordBatch, kind: Kind) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Characters in the texts of each record."""
    total = np.zeros(batch.num_rows, np.int64)
    for column in TEXTS[kind]:
        texts, rows = _texts(batch.column(column))
        np.add.at(total, rows, _array(pc.fill_null(pc.utf8_length(texts), 0)))
    return total


def counts(column: pa.Array) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Entries in each list of a column of lists."""
    return _array(pc.fill_null(pc.list_value_length(column), 0)).astype(np.int64)


def _condition(term: str, kind: Kind) -> Condition:
    match = _TERM.fullmatch(term)
    assert match is not None  # it takes any text
    minus, key, compare, value = match.groups()
    if key is None:
        return Condition("", ":", value, not minus)
    if not key.startswith("meta.") and key not in KEYS[kind]:
        known = ", ".join((*KEYS[kind], "meta.NAME"))
        raise UserError(f"Records of kind {kind} cannot be filtered by {key!r}.", f'Choose {known}, or quote "words".')
    if key in NUMBERS:
        if not value.isdecimal() or compare == ":":
            raise UserError(f"{key} is compared with a number, not {value!r}.", f"For example: {key}>500.")
    elif compare not in (":", "="):
        raise UserError(f"{key} is not a number.", f"For example: {key}:{value or 'something'}.")
    elif key == "answer" and value not in ("yes", "no"):
        raise UserError(f"Whether there is an answer is yes or no, not {value!r}.", "For example: answer:yes.")
    return Condition(key, compare, value, not minus)


def _mask(batch: pa.RecordBatch, kind: Kind, condition: Condition) -> Mask:
    key, value = condition.key, condition.value
    if not key:
        return contains(batch, kind, value)
    if key in NUMBERS:
        column = {"turns": "messages"}.get(key, key)
        numbers = lengths(batch, kind) if key == "length" else counts(batch.column(column))
        return COMPARE[condition.compare](numbers, int(value))
    if key in ("source", "annotator"):
        return _found(batch.column(key), value)
    if key == "task":
        return _equal(batch.column(key), value)
    if key == "answer":
        return _array(pc.is_valid(batch.column(key))) == (value == "yes")
    mask: Mask = np.zeros(batch.num_rows, bool)
    if key == "role":
        messages = batch.column("messages")
        mask[_array(pc.list_parent_indices(messages))[_equal(pc.list_flatten(messages).field("role"), value)]] = True
    elif key == "label":
        mask |= _equal(batch.column("label"), value)
        words, rows = _texts(batch.column("labels"))
        mask[rows[_equal(words, value)]] = True
    else:
        name = key.removeprefix("meta.")
        for row in np.flatnonzero(_found(batch.column("meta"), msgspec.json.encode(name).decode())):
            mask[row] = _says(msgspec.json.decode(batch.column("meta")[int(row)].as_py()).get(name), value)
    return mask


def _texts(column: pa.Array) -> tuple[pa.Array, np.ndarray[Any, np.dtype[np.int64]]]:
    """The strings of a column, those in lists and messages one by one, with the row that each stands in."""
    if not pa.types.is_list(column.type):
        return column, np.arange(len(column))
    flat, rows = pc.list_flatten(column), _array(pc.list_parent_indices(column))
    return (flat.field("content") if pa.types.is_struct(flat.type) else flat), rows


def _found(texts: pa.Array, text: str) -> Mask:
    return _array(pc.fill_null(pc.match_substring(texts, text, ignore_case=True), False))


def _equal(texts: pa.Array, text: str) -> Mask:
    return _array(pc.fill_null(pc.equal(texts, text), False))


def _says(found: Any, value: str) -> bool:
    """Whether a value of `meta` is what was asked for: as text, or one of a list."""
    if isinstance(found, list):
        return any(_says(one, value) for one in found)
    return (found if isinstance(found, str) else msgspec.json.encode(found).decode()).lower() == value.lower()


def _array(column: pa.Array) -> np.ndarray[Any, Any]:
    return column.to_numpy(zero_copy_only=False)
