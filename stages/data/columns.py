"""Rows of Parquet files and of the Arrow files of saved Hugging Face datasets, a bounded batch at a time."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from stages.data.shapes import Row
from stages.data.trouble import Refuse

ROWS = 256
"""Rows decoded at once."""

Tick = Callable[[int], None]
"""Called with the bytes of the file that a batch stands for. It may raise, to cancel."""


def read_parquet(path: Path, refuse: Refuse, tick: Tick) -> Iterator[tuple[int, Row]]:
    """The rows of a Parquet file, numbered from 1."""
    size = path.stat().st_size
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            names = _class_names(file.schema_arrow)
            total = max(1, file.metadata.num_rows)
            yield from _rows(file.iter_batches(ROWS, use_threads=False), names, refuse, tick, size / total)
    except (pa.ArrowException, OSError) as error:
        refuse(0, "", f"This Parquet file is damaged: {_plain(error)}.")


def read_arrow(path: Path, refuse: Refuse, tick: Tick) -> Iterator[tuple[int, Row]]:
    """The rows of an Arrow file, as `datasets` saves them (a stream) or as others do (a file), numbered from 1."""
    try:
        with pa.memory_map(str(path)) as source:
            batches, schema = _arrow_batches(source)
            yield from _rows(batches, _class_names(schema), refuse, tick, 0.0)
    except (pa.ArrowException, OSError) as error:
        refuse(0, "", f"This Arrow file is damaged: {_plain(error)}.")
    tick(path.stat().st_size)


def _arrow_batches(source: pa.MemoryMappedFile) -> tuple[Iterator[pa.RecordBatch], pa.Schema]:
    try:
        stream = pa.ipc.open_stream(source)
        return iter(stream), stream.schema
    except pa.ArrowInvalid:
        source.seek(0)
        file = pa.ipc.open_file(source)
        return (file.get_batch(n) for n in range(file.num_record_batches)), file.schema


def _rows(
    batches: Iterator[pa.RecordBatch], names: dict[str, list[str]], refuse: Refuse, tick: Tick, row_bytes: float
) -> Iterator[tuple[int, Row]]:
    number, done = 0, 0.0
    for batch in batches:
        for start in range(0, batch.num_rows, ROWS):
            part = batch.slice(start, ROWS)
            for row in _decoded(part, number, refuse):
                number += 1
                if row is not None:
                    yield number, {name: _plain_value(_named(row[name], names.get(name))) for name in row}
            before, done = int(done), done + row_bytes * part.num_rows
            tick(int(done) - before)


def _decoded(part: pa.RecordBatch, before: int, refuse: Refuse) -> list[Row | None]:
    """The rows; None for one whose text is broken. Checked first: Arrow believes the offsets that a file claims."""
    try:
        part.validate(full=True)
        return part.to_pylist()
    except (pa.ArrowInvalid, UnicodeDecodeError, ValueError, OverflowError):
        if part.num_rows > 1:
            return [row for n in range(part.num_rows) for row in _decoded(part.slice(n, 1), before + n, refuse)]
        refuse(before + 1, "", "The text of this row is not UTF-8, or a value is out of range.")
        return [None]


def _class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """The names of the classes that `datasets` keeps as numbers, by column."""
    try:
        info = msgspec.json.decode((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = info.get("info", {}).get("features", {})
        found = {}
        for column, feature in features.items():
            inner = feature.get("feature", feature) if isinstance(feature, dict) else {}
            if isinstance(inner, dict) and inner.get("_type") == "ClassLabel" and isinstance(inner.get("names"), list):
                found[column] = [str(name) for name in inner["names"]]
        return found
    except (msgspec.DecodeError, AttributeError, TypeError):
        return {}


def _named(value: Any, names: list[str] | None) -> Any:
    if names is None:
        return value
    if isinstance(value, list):
        return [_named(part, names) for part in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value


def _plain_value(value: Any) -> Any:
    """A value that JSON can hold."""
    if isinstance(value, dict):
        return {str(name): _plain_value(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_value(part) for part in value]
    if isinstance(value, bytes):
        return base64.b64encode(value[:60]).decode() + ("…" if len(value) > 60 else "")
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else str(value)


def _plain(error: BaseException) -> str:
    return str(error).splitlines()[0].rstrip(".")[:200] if str(error) else type(error).__name__
