"""A desk verb: some records of a dataset, in order, as plain JSON values."""

from __future__ import annotations

from itertools import chain, islice
from typing import Any

import msgspec

from stages.data.records import read_records
from stages.desk import Job
from stages.store.datasets import find_dataset


def slice_of(job: Job, dataset: str, start: int, count: int) -> dict[str, Any]:
    """Records `start` to `start + count` over both splits, training first: {kind, total, records}."""
    found = find_dataset(job.workspace, dataset)
    every = chain.from_iterable(read_records(found, split) for split in found.info.records)
    taken = []
    for number, record in enumerate(islice(every, start + count)):
        if number % 1_000 == 0:
            job.progress(number, start + count, "reading")
        if number >= start:
            taken.append(msgspec.to_builtins(record))
    return {"kind": found.info.kind, "total": sum(found.info.records.values()), "records": taken}
