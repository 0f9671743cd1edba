"""Looking at records: pages of a dataset of any size, search, filters and statistics. Verbs of the desk.

A place is a number from 0 among the records of a split, or among those of them for which a filter holds.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow.compute as pc

from stages.data import conditions
from stages.data.records import records_of
from stages.data.shelf import Shelf, SplitReader
from stages.desk import Job
from stages.store.datasets import Dataset
from stages.store.preview import Piece, cut, preview

LONGEST_PAGE = 1_000
SHOWN = 200_000
"""Characters of one text that are sent to be shown; a screen of it is never so long."""
TOP = 20
"""Sources, labels and roles that the statistics name."""
MOST_VALUES = 100_000
"""Different values of a column that the statistics tell apart."""
KEPT_FILTERS = 4

_shelf = Shelf()
_kept: OrderedDict[tuple[SplitReader, str], np.ndarray[Any, Any]] = OrderedDict()
_keeping = threading.Lock()


def ready(job: Job) -> None:
    """Nothing: by then all that looking at records needs has been loaded."""


def page(job: Job, *, dataset: str, split: str, start: int, count: int, filter: str = "") -> dict[str, Any]:  # noqa: A002
    """One line for each record from the place `start` on: {total, rows: [[number, [[text, style]…]]…]}."""
    found, reader = _shelf.split(job.workspace, dataset, split)
    numbers, total = _numbers(job, reader, filter, start, min(count, LONGEST_PAGE))
    lines: list[list[Piece]] = []
    for batch in reader.rows(numbers):
        job.check()
        lines += [preview(record) for record in records_of(batch, reader.kind)]
    return {"total": total, "rows": [*zip(numbers, lines, strict=True)], "digest": found.info.digest}


def read(
    job: Job,
    *,
    dataset: str,
    split: str,
    start: int,
    count: int = 1,
    filter: str = "",  # noqa: A002
    shown: int = SHOWN,
) -> dict[str, Any]:
    """Records in full from the place `start` on: {total, digest, records: [{number, record, cut}…]}.

    A text longer than `shown` characters is cut, and `cut` counts what is left out; 0 cuts nothing.
    """
    found, reader = _shelf.split(job.workspace, dataset, split)
    numbers, total = _numbers(job, reader, filter, start, min(count, LONGEST_PAGE))
    records = []
    for batch in reader.rows(numbers):
        job.check()
        records += [cut(record, shown) if shown else (record, 0) for record in records_of(batch, reader.kind)]
    entries = [
        {"number": number, "record": msgspec.to_builtins(record), "cut": missing}
        for number, (record, missing) in zip(numbers, records, strict=True)
    ]
    return {"total": total, "digest": found.info.digest, "records": entries}


def find(
    job: Job,
    *,
    dataset: str,
    split: str,
    text: str = "",
    start: int = 0,
    count: int = 1,
    filter: str = "",  # noqa: A002
) -> dict[str, Any]:
    """Like `read`, whole, but of the records that have `text` in them, where one is given."""
    view: dict[str, Any] = {"dataset": dataset, "split": split, "filter": filter}
    if not text:
        return read(job, **view, start=start, count=count, shown=0)
    found: list[dict[str, Any]] = []
    while len(found) < count:
        hit = search(job, **view, text=text, start=start)
        if hit["at"] is None or hit["at"] < start:
            break
        answer = read(job, **view, start=hit["at"], shown=0)
        found += answer["records"]
        start = hit["at"] + 1
        if start >= answer["total"]:
            break
    return {"records": found}


def search(
    job: Job,
    *,
    dataset: str,
    split: str,
    text: str,
    start: int = 0,
    step: int = 1,
    filter: str = "",  # noqa: A002
) -> dict[str, Any]:
    """The next place from `start` on, or back from it for `step` -1, with `text` in it: {at, wrapped}; at may be None.

    Behind the end it goes on at the beginning.
    """
    _, reader = _shelf.split(job.workspace, dataset, split)
    shown = _filtered(job, reader, filter)
    total = reader.records if shown is None else len(shown)
    if not total:
        return {"at": None, "wrapped": False}
    start %= total
    number = start if shown is None else int(shown[start])
    first, looked = reader.group_of(number), 0
    order = [(first + step * turn) % reader.groups for turn in range(reader.groups + 1)]
    for turn, group in enumerate(order):
        hits = np.flatnonzero(conditions.contains(reader.read(group, conditions.TEXTS[reader.kind]), reader.kind, text))
        hits = hits + reader.first(group)
        if shown is not None:
            hits = hits[np.isin(hits, shown)]
        if turn in (0, reader.groups):  # the first group is looked at twice: up to the start, and from it on
            ahead = hits >= number if step > 0 else hits <= number
            hits = hits[ahead if turn == 0 else ~ahead]
        if len(hits):
            hit = int(hits[0] if step > 0 else hits[-1])
            at = hit if shown is None else int(np.searchsorted(shown, hit))
            return {"at": at, "wrapped": at < start if step > 0 else at > start}
        looked += reader.first(group + 1) - reader.first(group)
        job.progress(min(looked, reader.records), reader.records, "searching")
    return {"at": None, "wrapped": False}


def count(job: Job, *, dataset: str, split: str, filter: str) -> dict[str, Any]:  # noqa: A002
    """For how many records a filter holds: {total}. UserError for a filter that makes no sense."""
    _, reader = _shelf.split(job.workspace, dataset, split)
    return {"total": _numbers(job, reader, filter, 0, 0)[1]}


def statistics(job: Job, *, dataset: str, split: str, filter: str = "") -> dict[str, Any]:  # noqa: A002
    """Counts, lengths, and what stands in the columns most often: {records, characters, lengths, tables}."""
    found, reader = _shelf.split(job.workspace, dataset, split)
    shown = conditions.parse(filter, reader.kind)
    lengths: list[np.ndarray[Any, Any]] = []
    tables: dict[str, Counter[str]] = {}
    for group in range(reader.groups):
        batch = reader.read(group)
        if shown:
            batch = batch.filter(conditions.holds(batch, reader.kind, shown))
        lengths.append(conditions.lengths(batch, reader.kind).astype(np.uint32))
        _tally(tables, batch)
        job.progress(reader.first(group), reader.records, "counting")
    every = np.concatenate(lengths) if lengths else np.zeros(0, np.uint32)
    return {
        "records": len(every),
        "characters": int(every.sum(dtype=np.int64)),
        "lengths": _quantiles(every),
        "tables": {name: table.most_common(TOP) for name, table in tables.items() if table},
        "kinds": {name: len(table) for name, table in tables.items()},
        "dataset": _facts(found),
    }


def _numbers(job: Job, reader: SplitReader, text: str, start: int, count: int) -> tuple[Sequence[int], int]:
    """The numbers of the records at `count` places from `start` on, and how many places there are."""
    shown, start = _filtered(job, reader, text), max(0, start)
    if shown is None:
        return range(start, max(start, min(start + count, reader.records))), reader.records
    return [int(number) for number in shown[start : start + count]], len(shown)


def _filtered(job: Job, reader: SplitReader, text: str) -> np.ndarray[Any, Any] | None:
    """The numbers of the records for which a filter holds, found once; None where there is no filter."""
    wanted = conditions.parse(text, reader.kind)
    if not wanted:
        return None
    with _keeping:
        if (kept := _kept.get((reader, text))) is not None:
            return kept
    found = []
    for group in range(reader.groups):
        batch = reader.read(group, conditions.columns(reader.kind, wanted))
        found.append((np.flatnonzero(conditions.holds(batch, reader.kind, wanted)) + reader.first(group)).astype("u4"))
        job.progress(reader.first(group), reader.records, "filtering")
    numbers: np.ndarray[Any, Any] = np.concatenate(found) if found else np.zeros(0, "u4")
    with _keeping:
        _kept[reader, text] = numbers
        while len(_kept) > KEPT_FILTERS:
            _kept.popitem(last=False)
    return numbers


def _tally(tables: dict[str, Counter[str]], batch: Any) -> None:
    """Count what the columns of a row group say."""
    names = set(batch.schema.names)
    columns = {name: batch.column(name) for name in ("source", "task", "label", "annotator") if name in names}
    if "messages" in names:
        messages = batch.column("messages")
        columns["role"] = pc.list_flatten(messages).field("role")
        columns["turns"] = pc.list_value_length(messages)
    for name in ("completions", "labels"):
        if name in names:
            lists = batch.column(name)
            columns[name] = pc.list_value_length(lists) if name == "completions" else pc.list_flatten(lists)
    for name, column in columns.items():
        table = tables.setdefault(name, Counter())
        for entry in pc.value_counts(column):
            value = entry["values"].as_py()
            if value not in (None, "") and (str(value) in table or len(table) < MOST_VALUES):
                table[str(value)] += entry["counts"].as_py()


def _quantiles(lengths: np.ndarray[Any, Any]) -> dict[str, int]:
    if not len(lengths):
        return {}
    names, shares = ("shortest", "5%", "half", "95%", "longest"), (0, 0.05, 0.5, 0.95, 1)
    values = np.quantile(lengths, shares, method="inverted_cdf")
    return {name: int(value) for name, value in zip(names, values, strict=True)}


def _facts(dataset: Dataset) -> dict[str, Any]:
    return {"name": dataset.name, "kind": dataset.info.kind, "digest": dataset.info.digest}
