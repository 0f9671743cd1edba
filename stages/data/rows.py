"""The rows of a file, whatever its form: each a number (line or row, from 1) and named fields."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from stages.data.columns import read_arrow, read_parquet
from stages.data.find_files import Form
from stages.data.json_values import read_json
from stages.data.opening import BROKEN, Advance, Unpacks, opened
from stages.data.readers import read_json_lines
from stages.data.shapes import Row, openassistant, ranking_rows
from stages.data.tables import read_table
from stages.data.trouble import Refuse


def read_rows(path: Path, form: Form, refuse: Refuse, advance: Advance) -> Iterator[tuple[int, Row]]:
    """The rows of a file that is not text. `advance` is told the bytes read, and often; it may raise, to cancel.

    Raises OSError when the file cannot be opened.
    """
    last, texts = 0, None
    try:
        for number, value in _grouped(_values(path, form, refuse, advance)):
            last, texts = number, isinstance(value, str) if texts is None else texts
            if isinstance(value, dict):
                yield number, value
            elif texts and isinstance(value, str):
                yield number, {"text": value}
            else:
                refuse(number, "", "This is not a JSON object.")
    except (*BROKEN, Unpacks) as error:
        refuse(last, "", f"Beyond here the file cannot be unpacked: {str(error).rstrip('.') or 'it is damaged'}.")


def _values(path: Path, form: Form, refuse: Refuse, advance: Advance) -> Iterator[tuple[int, Any]]:
    if form == "parquet":
        return read_parquet(path, refuse, advance)
    if form == "arrow":
        return read_arrow(path, refuse, advance)
    if form == "json" and not _is_lines(path):
        return read_json(_opener(path, advance), refuse)
    return _from_bytes(path, form, refuse, advance)


def _from_bytes(path: Path, form: Form, refuse: Refuse, advance: Advance) -> Iterator[tuple[int, Any]]:
    with opened(path, advance) as file:
        if form in ("csv", "tsv"):
            yield from read_table(file, refuse, tabs=form == "tsv")
        else:
            yield from read_json_lines(file, refuse)


def _opener(path: Path, advance: Advance) -> Callable[[], BinaryIO]:
    return lambda: opened(path, advance)


def _is_lines(path: Path) -> bool:
    """Whether a .json file holds an object in each line, as many do."""
    try:
        with opened(path, lambda count: None) as file:
            first, second = file.readline(1 << 20), file.read(1)
        return bool(second) and isinstance(msgspec.json.decode(first.removeprefix(b"\xef\xbb\xbf")), dict)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, Unpacks, *BROKEN):
        return False


def _grouped(values: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    """Rows that belong together, messages of a tree or completions of a ranking, as one; others stay as they are."""
    first = next(values, None)
    if first is None:
        return
    again = _before(first, values)
    if isinstance(first[1], dict) and openassistant.is_message_row(first[1]):
        yield from openassistant.as_trees((number, row) for number, row in again if isinstance(row, dict))
    elif isinstance(first[1], dict) and ranking_rows.is_ranking_row(first[1]):
        yield from ranking_rows.as_rankings((number, row) for number, row in again if isinstance(row, dict))
    else:
        yield from again


def _before(first: tuple[int, Any], rest: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    yield first
    yield from rest
