"""Random access to the records of a dataset: an index of row groups, and the groups read last.

A split is its Parquet files in order, each a run of row groups of a few megabytes. Their sizes stand in the files' last
bytes, so that opening reads nothing else, and a record is found by bisection.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from stages.store.datasets import Dataset, Kind, find_dataset
from stages.store.errors import UserError, WorkFailed
from stages.store.workspace import Workspace

KEPT_BYTES = 128_000_000
"""Decoded row groups that are kept, in bytes."""
KEPT_SPLITS = 8


class Place(NamedTuple):
    """A row group: file, number in the file, number of its first record in the split."""

    file: int
    group: int
    first: int


class SplitReader:
    """The records of one split by number, for many threads. What it has open it reads on, though it be replaced."""

    def __init__(self, paths: Sequence[Path], kind: Kind) -> None:
        self.kind = kind
        self._paths = list(paths)
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, pa.RecordBatch] = OrderedDict()
        with _damage(self._paths):
            self._files = [pq.ParquetFile(path) for path in paths]
        rows: list[int] = []
        self._places: list[Place] = []
        for number, file in enumerate(self._files):
            for group in range(file.metadata.num_row_groups):
                self._places.append(Place(number, group, sum(rows[-1:])))
                rows.append(sum(rows[-1:]) + file.metadata.row_group(group).num_rows)
        self.records = sum(rows[-1:])
        self._firsts = [place.first for place in self._places]

    @property
    def groups(self) -> int:
        """Row groups in the split."""
        return len(self._places)

    def first(self, group: int) -> int:
        """The number of the first record of a row group; of the one after the last, the number of records."""
        return self._firsts[group] if group < len(self._firsts) else self.records

    def group_of(self, number: int) -> int:
        """The row group that holds a record."""
        return bisect.bisect_right(self._firsts, number) - 1

    def rows(self, numbers: Sequence[int]) -> Iterator[pa.RecordBatch]:
        """The records of these ascending numbers, a batch a row group."""
        for group, some in itertools.groupby(numbers, self.group_of):
            yield self._group(group).take(pa.array([number - self._firsts[group] for number in some], pa.int64()))

    def read(self, group: int, columns: Sequence[str] | None = None) -> pa.RecordBatch:
        """A row group, or some columns of it, read from disk and not kept."""
        place = self._places[group]
        with _damage([self._paths[place.file]]), self._lock:
            table = self._files[place.file].read_row_group(
                place.group, columns=list(columns) if columns else None, use_threads=False
            )
        batches = table.combine_chunks().to_batches()
        return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)

    def _group(self, group: int) -> pa.RecordBatch:
        with self._lock:
            if group in self._kept:
                self._kept.move_to_end(group)
                return self._kept[group]
        batch = self.read(group)
        with self._lock:
            self._kept[group] = batch
            while len(self._kept) > 1 and sum(kept.nbytes for kept in self._kept.values()) > KEPT_BYTES:
                self._kept.popitem(last=False)
        return batch


class Shelf:
    """The splits opened last. A dataset that was replaced is opened anew."""

    def __init__(self) -> None:
        self._open: OrderedDict[tuple[Path, str, int, int], SplitReader] = OrderedDict()
        self._lock = threading.Lock()

    def split(self, workspace: Workspace, name: str, split: str) -> tuple[Dataset, SplitReader]:
        """A dataset and the reader of one of its splits. UserError naming the splits there are."""
        dataset = find_dataset(workspace, name)
        if split not in dataset.info.records:
            known = ", ".join(dataset.info.records) or "none"
            raise UserError(f"The dataset {name!r} has no split {split!r}.", f"It has {known}.")
        stat = (dataset.path / "dataset.json").stat()
        key = (dataset.path, split, stat.st_ino, stat.st_mtime_ns)
        with self._lock:
            if key not in self._open:
                self._open[key] = SplitReader(dataset.shards(split), dataset.info.kind)
                while len(self._open) > KEPT_SPLITS:
                    self._open.popitem(last=False)
            self._open.move_to_end(key)
            return dataset, self._open[key]


@contextlib.contextmanager
def _damage(paths: Sequence[Path]) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        named = paths[0] if len(paths) == 1 else paths[0].parent if paths else "the dataset"
        raise WorkFailed(f"{named} cannot be read: {error}.", "Build the dataset again.") from error
