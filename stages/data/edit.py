"""Making and changing small sets of records by hand. Verbs of the desk.

Every change writes the whole set anew and puts it in the place of the old one in a rename, so that a kill at any moment
leaves the one or the other. The digest is that of the
records, so that it comes back when a change is undone.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from stages.data.records import RecordWriter, read_records
from stages.desk import Job
from stages.store.building import building
from stages.store.datasets import Dataset, DatasetInfo, Kind, find_dataset
from stages.store.errors import UserError
from stages.store.files import check_space, write_atomic
from stages.store.handmade import Edit, check, record_from, why_not_editable
from stages.store.records import Record

SPLITS = ("train", "val")
SPLIT = "by hand"
"""What dataset.json of a set made by hand says of its split."""


def create(job: Job, *, name: str, kind: Kind) -> dict[str, Any]:
    """Make an empty dataset. UserError when the name is taken or will not do."""
    with building(job.workspace.datasets, name, "dataset") as folder:
        return write_set(folder, DatasetInfo(name=name, kind=kind, digest="", records={}, split=SPLIT), {})


def copy(job: Job, *, dataset: str, name: str) -> dict[str, Any]:
    """Make a dataset with the records of another under a new name; equal records, equal digest."""
    found = find_dataset(job.workspace, dataset)
    records = found.path / "records"
    with building(job.workspace.datasets, name, "dataset") as folder:
        if records.is_dir():
            check_space(folder, sum(path.stat().st_size for path in records.iterdir()))
            shutil.copytree(records, folder / "records")
        info = msgspec.structs.replace(found.info, name=name, created=time.time(), run="")
        write_atomic(folder / "dataset.json", msgspec.json.format(msgspec.json.encode(info), indent=1))
    return {"digest": info.digest, "records": info.records}


def edit(job: Job, *, dataset: str, digest: str, split: str, at: int, before: Any, after: Any) -> dict[str, Any]:
    """Insert, replace or delete one record: {digest, records}, durably on disk when it returns.

    `before` is the record at the place `at`, None to insert there; `after` what is to stand there, None to delete.
    UserError when the set is needed by something, too large, or no longer the one with `digest`.
    """
    found = find_dataset(job.workspace, dataset)
    kind = found.info.kind
    change = Edit(at, record_from(before, kind), record_from(after, kind))
    if change.after is not None:
        check(change.after)
    if reason := why_not_editable(job.workspace, found):
        raise reason
    with building(job.workspace.datasets, dataset, "dataset", replace=True) as folder:
        now = Dataset(found.path, _info(found.path))  # read with the lock on its name held: this is what is replaced
        if now.info.digest != digest:
            raise UserError(f"The dataset {dataset!r} has changed meanwhile.", "Look at it again, then repeat.")
        records = {side: list(read_records(now, side)) for side in dict.fromkeys((*SPLITS, *now.info.records))}
        records.setdefault(split, [])
        change.apply(records[split])
        job.check()
        return write_set(folder, now.info, records)


def write_set(folder: Path, info: DatasetInfo, records: dict[str, list[Record]]) -> dict[str, Any]:
    """Fill the folder of a dataset with records, and with the facts that follow from them."""
    (folder / "records").mkdir()
    with ExitStack() as stack:
        writers = {
            side: stack.enter_context(RecordWriter(folder / "records", side, info.kind))
            for side in dict.fromkeys((*SPLITS, *records))
        }
        for side, writer in writers.items():
            for record in records.get(side, []):
                writer.write(record)
    info = msgspec.structs.replace(
        info,
        digest=_digest(info, writers),
        records={side: writer.records for side, writer in writers.items()},
        characters={side: writer.characters for side, writer in writers.items()},
        bytes={side: writer.bytes for side, writer in writers.items()},
        created=info.created or time.time(),
    )
    write_atomic(folder / "dataset.json", msgspec.json.format(msgspec.json.encode(info), indent=1))
    return {"digest": info.digest, "records": info.records}


def _info(folder: Path) -> DatasetInfo:
    return msgspec.json.decode((folder / "dataset.json").read_bytes(), type=DatasetInfo)


def _digest(info: DatasetInfo, writers: dict[str, RecordWriter]) -> str:
    """The digest that a build gives to the same records."""
    parts = [info.kind, info.split, *(writers[side].digest() for side in SPLITS)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
