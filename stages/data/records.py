"""Canonical records of kind text, in Parquet: what a dataset is made of.

Files are `records/<split>-<number>.parquet`, compressed with zstd, in row groups of bounded size, so that reading and
writing need the same memory whatever the size of the dataset.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from stages.store.datasets import Dataset
from stages.store.errors import WorkFailed

SCHEMA = pa.schema([("text", pa.string()), ("source", pa.string()), ("meta", pa.string())])
"""`meta` is a JSON object."""

GROUP_BYTES = 4_000_000
GROUP_ROWS = 8_192
"""A row group ends when it holds this much UTF-8 text or this many records."""

SHARD_BYTES = 512_000_000
"""UTF-8 bytes of text in one file, about."""


class TextRecord(NamedTuple):
    text: str
    source: str
    """Where the text comes from, without the folders above what the user named."""
    meta: dict[str, Any]


class RecordWriter:
    """Writes one split of a dataset, a row group at a time. A context manager."""

    def __init__(self, folder: Path, split: str) -> None:
        self._folder, self._split = folder, split
        self._rows: list[tuple[str, str, str]] = []
        self._group_bytes = self._shard_bytes = self._shards = 0
        self._file: pq.ParquetWriter | None = None
        self._hash = hashlib.sha256()
        self.records = self.characters = self.bytes = 0

    def __enter__(self) -> RecordWriter:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        if kind is None:
            self._flush()
        self._close_file()

    def write(self, record: TextRecord) -> None:
        """Add a record."""
        meta = msgspec.json.encode(record.meta, order="sorted").decode()
        row = (record.text, record.source, meta)
        size = len(record.text.encode())
        self._hash.update(msgspec.json.encode(row) + b"\n")
        self._rows.append(row)
        self.records += 1
        self.characters += len(record.text)
        self.bytes += size
        self._group_bytes += size
        if self._group_bytes >= GROUP_BYTES or len(self._rows) >= GROUP_ROWS:
            self._flush()

    def digest(self) -> str:
        """SHA-256 over the records written so far, in order; the same whatever Parquet makes of them."""
        return self._hash.hexdigest()

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._file is None:
            path = self._folder / f"{self._split}-{self._shards:05d}.parquet"
            self._file = pq.ParquetWriter(path, SCHEMA, compression="zstd")
            self._shards += 1
        columns = [pa.array(column, pa.string()) for column in zip(*self._rows, strict=True)]
        self._file.write_table(pa.Table.from_arrays(columns, schema=SCHEMA))
        self._shard_bytes += self._group_bytes
        self._rows, self._group_bytes = [], 0
        if self._shard_bytes >= SHARD_BYTES:
            self._close_file()

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file, self._shard_bytes = None, 0


def read_shards(shards: list[Path]) -> Iterator[TextRecord]:
    """The records of Parquet files, in order, a row group in memory at a time. WorkFailed naming a damaged file."""
    for path in shards:
        try:
            with pq.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    for row in file.read_row_group(group, use_threads=False).to_pylist():
                        yield TextRecord(row["text"], row["source"], msgspec.json.decode(row["meta"]))
        except (pa.ArrowException, msgspec.DecodeError, KeyError, TypeError) as error:
            raise WorkFailed(f"{path} is damaged: {error}.", "Build the dataset again.") from error


def read_records(dataset: Dataset, split: str) -> Iterator[TextRecord]:
    """The records of a split, in order, streaming."""
    return read_shards(dataset.shards(split))


def read_texts(dataset: Dataset, split: str) -> Iterator[str]:
    """The texts of a split, in order, streaming."""
    return (record.text for record in read_records(dataset, split))
