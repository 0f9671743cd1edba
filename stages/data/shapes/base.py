"""What a shape is: a way in which people write records of a kind, and how a row of it is taken apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from stages.store.datasets import Kind
from stages.store.records import Record

Row = dict[str, Any]
"""A JSON object, or the named columns of one row of a table."""

NAMED_FIELDS = 8
"""Fields that a refusal names, at most."""


class Unfit(Exception):
    """This row cannot be used: the field, and a sentence."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field, self.message = field, message


class Fields:
    """The fields of one row. Those that are taken make the record, the others its meta."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self._taken: set[str] = set()
        self._null: set[str] = set()
        """Fields that were asked for and are null: they say nothing, in the meta neither."""

    def take(self, *names: str) -> Any:
        """The value of the first of these fields that is there and not null; None when none is."""
        for name in names:
            if self.row.get(name) is not None:
                self._taken.add(name)
                return self.row[name]
            self._null.add(name)
        return None

    def text(self, *names: str) -> str:
        """Text under one of these names. Unfit when there is none."""
        return text_of(self.needed(*names), names_in(self.row, names))

    def optional(self, *names: str) -> str:
        """Text under one of these names; empty when there is none."""
        value = self.take(*names)
        return "" if value is None else text_of(value, names_in(self.row, names))

    def needed(self, *names: str) -> Any:
        """The value under one of these names. Unfit when there is none."""
        value = self.take(*names)
        if value is None:
            raise Unfit(names[0], f"There is no field {names[0]!r}; the fields are: {named(self.row)}.")
        return value

    def taken(self) -> list[str]:
        """The names of the fields that were taken, as they stand in the row."""
        return [name for name in self.row if name in self._taken]

    def rest(self) -> Row:
        """What was not taken."""
        left = {name: value for name, value in self.row.items() if name not in self._taken}
        return {name: value for name, value in left.items() if value is not None or name not in self._null}


class Shape(NamedTuple):
    """One way of writing records of a kind."""

    name: str
    kind: Kind
    fields: str
    """Which fields make it, for people."""
    fits: Callable[[Row], bool]
    """Whether a row looks like one, by the names and types of its fields; cheap."""
    read: Callable[[Fields], list[Record]]
    """The records of a row, without source and meta. Raises Unfit."""


def text_of(value: Any, field: str) -> str:
    """`value` as text; a number counts as its digits. Unfit for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return str(value)
    raise Unfit(field, "This is not text.")


def texts_of(value: Any, field: str) -> list[str]:
    """A list of texts. Unfit when it is empty or something else."""
    if not isinstance(value, list) or not value:
        raise Unfit(field, "This is not a list of texts.")
    return [text_of(part, f"{field}[{n}]") for n, part in enumerate(value)]


def names_in(row: Row, names: Iterable[str]) -> str:
    """The first of these names that the row has."""
    given = list(names)
    return next((name for name in given if row.get(name) is not None), given[0])


def has_text(row: Row, *names: str) -> bool:
    """Whether there is text under one of these names."""
    return any(isinstance(row.get(name), str) for name in names)


def has_label(row: Row, *names: str) -> bool:
    """Whether there is something short under one of these names that may be a label."""
    values = [row.get(name) for name in names]
    return any(isinstance(v, bool | int | float) or (isinstance(v, str) and 0 < len(v) <= 64) for v in values)


def is_texts(value: Any) -> bool:
    """Whether this is a list of texts, and not empty."""
    return isinstance(value, list) and bool(value) and all(isinstance(part, str) for part in value)


def named(row: Row) -> str:
    """The names of a row's fields, for a sentence."""
    names = ", ".join(list(row)[:NAMED_FIELDS]) or "none"
    return names[:200] + (" …" if len(row) > NAMED_FIELDS else "")
