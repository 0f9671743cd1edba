"""Chat datasets written by hand, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from stages.data.records import RecordWriter
from stages.store.datasets import Dataset, DatasetInfo
from stages.store.records import ChatRecord, Message


def chat_dataset(folder: Path, train: Sequence[Sequence[Message]], *, val: Sequence[Sequence[Message]] = ()) -> Dataset:
    """A dataset of kind chat in `folder`, which carries its name."""
    digests, counts, sizes = [], {}, {}
    for split, conversations in (("train", train), ("val", val)):
        with RecordWriter(folder / "records", split, "chat") as writer:
            for messages in conversations:
                writer.write(ChatRecord(messages=list(messages), source=f"{folder.name}.jsonl"))
        digests.append(writer.digest())
        counts[split], sizes[split] = writer.records, writer.bytes
    info = DatasetInfo(
        name=folder.name, kind="chat", digest="".join(digests)[::2], records=counts, bytes=sizes, characters=sizes
    )
    (folder / "dataset.json").write_bytes(msgspec.json.encode(info))
    return Dataset(folder, info)
