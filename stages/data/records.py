"""Canonical records in Parquet: what a dataset is made of.

Files are `records/<split>-<number>.parquet`, compressed with zstd, in row groups of bounded size, so that reading and
writing need the same memory whatever the size of the dataset. One schema a kind, with the fields of
`stages/store/records.py`; `meta` is a JSON object. A file says its kind in its schema's metadata.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from stages.store.datasets import Dataset, Kind
from stages.store.errors import UserError, WorkFailed
from stages.store.records import KINDS, Record, TextRecord, texts_in

TEXTS = pa.list_(pa.string())
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string()), ("train", pa.bool_())]))
ORIGIN = [("source", pa.string()), ("meta", pa.string())]

FIELDS: dict[Kind, list[tuple[str, pa.DataType]]] = {
    "text": [("text", pa.string()), *ORIGIN],
    "chat": [("messages", MESSAGES), *ORIGIN],
    "preference": [
        ("messages", MESSAGES),
        ("completions", TEXTS),
        ("ranks", pa.list_(pa.int64())),
        ("scores", pa.list_(pa.float64())),
        ("annotator", pa.string()),
        *ORIGIN,
    ],
    "prompts": [("messages", MESSAGES), ("answer", pa.string()), *ORIGIN],
    "labelled": [("task", pa.string()), ("texts", TEXTS), ("label", pa.string()), ("labels", TEXTS), *ORIGIN],
}

SCHEMAS: dict[Kind, pa.Schema] = {
    kind: pa.schema(fields, metadata={"workbench.kind": kind}) for kind, fields in FIELDS.items()
}

GROUP_BYTES = 4_000_000
GROUP_ROWS = 8_192
"""A row group ends when it holds this much UTF-8 or this many records."""

SHARD_BYTES = 512_000_000
"""UTF-8 bytes of records in one file, about."""


class RecordWriter:
    """Writes one split of a dataset of one kind, a row group at a time. A context manager."""

    def __init__(self, folder: Path, split: str, kind: Kind = "text") -> None:
        self._folder, self._split, self.kind = folder, split, kind
        self._rows: list[dict[str, Any]] = []
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

    def write(self, record: Record) -> None:
        """Add a record of the writer's kind. `characters` and `bytes` count every text in it."""
        if type(record) is not KINDS[self.kind]:
            raise TypeError(f"a {type(record).__name__} among records of kind {self.kind}")
        line = msgspec.json.encode(record, order="sorted")
        self._hash.update(line + b"\n")
        row: dict[str, Any] = msgspec.to_builtins(record)
        row["meta"] = msgspec.json.encode(record.meta, order="sorted").decode()
        self._rows.append(row)
        self.records += 1
        for text in texts_in(record):
            self.characters += len(text)
            self.bytes += len(text) if text.isascii() else len(text.encode())
        self._group_bytes += len(line)
        if self._group_bytes >= GROUP_BYTES or len(self._rows) >= GROUP_ROWS:
            self._flush()

    def digest(self) -> str:
        """SHA-256 over the records written so far, in order; the same whatever Parquet makes of them."""
        return self._hash.hexdigest()

    def _flush(self) -> None:
        if not self._rows:
            return
        schema = SCHEMAS[self.kind]
        if self._file is None:
            path = self._folder / f"{self._split}-{self._shards:05d}.parquet"
            self._file = pq.ParquetWriter(path, schema, compression="zstd")
            self._shards += 1
        self._file.write_table(pa.Table.from_pylist(self._rows, schema=schema))
        self._shard_bytes += self._group_bytes
        self._rows, self._group_bytes = [], 0
        if self._shard_bytes >= SHARD_BYTES:
            self._close_file()

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file, self._shard_bytes = None, 0


def read_shards(shards: list[Path]) -> Iterator[Record]:
    """The records of Parquet files, in order, a row group in memory at a time. WorkFailed naming a damaged file."""
    for path in shards:
        try:
            with pq.ParquetFile(path) as file:
                kind = kind_of(file.schema_arrow)
                for group in range(file.num_row_groups):
                    yield from records_of(file.read_row_group(group, use_threads=False), kind)
        except (pa.ArrowException, msgspec.DecodeError, KeyError, TypeError) as error:
            raise WorkFailed(f"{path} is damaged: {error}.", "Build the dataset again.") from error


def records_of(rows: pa.Table | pa.RecordBatch, kind: Kind) -> Iterator[Record]:
    """The records in rows of a records file of this kind."""
    struct = KINDS[kind]
    for row in rows.to_pylist():
        row["meta"] = msgspec.json.decode(row["meta"])
        yield msgspec.convert(row, struct)


def kind_of(schema: pa.Schema) -> Kind:
    """The kind that a records file says it holds; text where it says nothing. KeyError for one that we do not know."""
    kinds: dict[str, Kind] = {kind: kind for kind in KINDS}
    return kinds[(schema.metadata or {}).get(b"workbench.kind", b"text").decode()]


def read_records(dataset: Dataset, split: str) -> Iterator[Record]:
    """The records of a split, in order, streaming."""
    return read_shards(dataset.shards(split))


def read_all_texts(dataset: Dataset, split: str) -> Iterator[str]:
    """Every text in the records of a split, whatever their kind, in order, streaming."""
    return (text for record in read_records(dataset, split) for text in texts_in(record))


def read_texts(dataset: Dataset, split: str) -> Iterator[str]:
    """The texts of a split of a dataset of kind text, in order, streaming. UserError for another kind."""
    if dataset.info.kind != "text":
        raise UserError(
            f"The dataset {dataset.name!r} holds records of kind {dataset.info.kind}, not text.",
            "Choose a dataset of kind text.",
        )
    return (record.text for record in read_records(dataset, split) if isinstance(record, TextRecord))
