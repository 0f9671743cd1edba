"""Rows of CSV and TSV files: quoted newlines, byte-order marks, any length of a field up to a bound.

A record that is not well formed costs one line: reading goes on with the line after the one in which it began, so that
a quote that is never closed does not swallow the rest of the file.
"""

from __future__ import annotations

import codecs
import csv
from collections import deque
from collections.abc import Iterator
from typing import BinaryIO

from stages.data.readers import LONGEST_LINE, read_lines, too_long
from stages.data.trouble import Refuse, not_utf8

MOST_COLUMNS = 10_000
DELIMITERS = (",", ";", "\t", "|")


def read_table(file: BinaryIO, refuse: Refuse, *, tabs: bool) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a table with a head, each with the line in which it begins.

    `tabs`: fields are separated by tabs, and a quote that makes no sense is a character like any other.
    """
    csv.field_size_limit(LONGEST_LINE)
    lines = _Lines(file, refuse)
    head = _head(lines, refuse, tabs=tabs)
    if head is None:
        return
    columns, delimiter = head
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        lines.begin()
        problem = ""
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            cells, problem = [], f"This is not CSV: {_plain(error)}."
        if not problem and not any(cells):
            continue
        if not problem and len(cells) != len(columns):
            problem = f"The number of its fields is {len(cells):,}, and the head names {len(columns):,}."
        if problem and tabs:
            cells = lines.first.rstrip("\r\n").split("\t")
        if problem and (not tabs or len(cells) != len(columns)):
            refuse(lines.number, "", problem)
            lines.back_to_second()
            continue
        if problem:
            lines.back_to_second()
        yield lines.number, dict(zip(columns, cells, strict=True))


class _Lines:
    """The lines of a file as text, with those of the record being read, which can be given back."""

    def __init__(self, file: BinaryIO, refuse: Refuse) -> None:
        self._source = read_lines(file)
        self._refuse = refuse
        self._ahead: deque[tuple[int, str]] = deque()
        self._held: list[tuple[int, str]] = []
        self._size = 0

    def begin(self) -> None:
        """A new record begins."""
        self._held, self._size = [], 0

    @property
    def number(self) -> int:
        """The line in which the record begins."""
        return self._held[0][0] if self._held else 0

    @property
    def first(self) -> str:
        """The record's first line."""
        return self._held[0][1] if self._held else ""

    def back_to_second(self) -> None:
        """Give back all but the first line of the record."""
        self._ahead.extendleft(reversed(self._held[1:]))

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        number, text = self._ahead.popleft() if self._ahead else self._read()
        self._held.append((number, text))
        self._size += len(text)
        if self._size > LONGEST_LINE and len(self._held) > 1:
            raise csv.Error(f"a quote is not closed within {LONGEST_LINE / 1e6:.0f} MB")
        return text

    def _read(self) -> tuple[int, str]:
        for number, line, size in self._source:
            if line is None:
                self._refuse(number, "", too_long(size))
                continue
            try:
                return number, (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).decode()
            except UnicodeDecodeError as error:
                self._refuse(number, "", not_utf8(error))
        raise StopIteration


def _head(lines: _Lines, refuse: Refuse, *, tabs: bool) -> tuple[list[str], str] | None:
    """The names of the columns, made distinct, and the delimiter; None when they have been refused."""
    lines.begin()
    first = next((line for line in lines if line.strip()), "")
    number = lines._held[-1][0] if lines._held else 0
    delimiter = "\t" if tabs else max(DELIMITERS, key=first.count)
    if first.count(delimiter) >= MOST_COLUMNS:
        refuse(number, "", f"The head names {first.count(delimiter) + 1:,} columns; the limit is {MOST_COLUMNS:,}.")
        return None
    try:
        names = next(csv.reader([first], delimiter=delimiter, strict=True), [])
    except csv.Error as error:
        refuse(number, "", f"The head is not CSV: {_plain(error)}.")
        return None
    seen: dict[str, int] = {}
    columns = []
    for place, name in enumerate(names, 1):
        name = name.strip() or f"column {place}"
        seen[name] = seen.get(name, 0) + 1
        columns.append(name if seen[name] == 1 else f"{name} {seen[name]}")
    return columns, delimiter


def _plain(error: csv.Error) -> str:
    return "a quote is never closed" if "unexpected end" in str(error) else str(error)
