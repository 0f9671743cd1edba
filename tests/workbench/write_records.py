"""Write a dataset: FOLDER TRAIN VAL for numbered documents, FOLDER TEXTS.json for conversations of given texts.

A process of its own: the app loads no Arrow.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from stages.data.records import RecordWriter
from stages.store.datasets import DatasetInfo
from stages.store.records import ChatRecord, Message, TextRecord


def talks(folder: Path, texts: list[str]) -> None:
    """A conversation for each text, which stands in every field of it, and one last with all texts."""
    with RecordWriter(folder / "records", "train", "chat") as writer:
        for text in texts:
            writer.write(ChatRecord(messages=[Message("user", text)], source=text, meta={text: text}))
        everything = [Message("assistant", text) for text in texts]
        writer.write(ChatRecord(messages=everything, source=texts[0], meta={text: text for text in texts}))
    counts = {"train": writer.records}
    info = DatasetInfo(name=folder.name, kind="chat", digest="d1" * 32, records=counts, created=1_772_000_000.0)
    (folder / "dataset.json").write_bytes(msgspec.json.encode(info))


def main(folder: Path, counts: dict[str, int]) -> None:
    for split, count in counts.items():
        with RecordWriter(folder / "records", split) as writer:
            for number in range(count):
                writer.write(TextRecord(text=f"number {number}", source=f"part-{number % 10}.txt"))
    info = DatasetInfo(name=folder.name, kind="text", digest="d1" * 32, records=counts, created=1_772_000_000.0)
    (folder / "dataset.json").write_bytes(msgspec.json.encode(info))


if __name__ == "__main__":
    if sys.argv[2].endswith(".json"):
        talks(Path(sys.argv[1]), msgspec.json.decode(Path(sys.argv[2]).read_bytes(), type=list[str]))
    else:
        main(Path(sys.argv[1]), {"train": int(sys.argv[2]), "val": int(sys.argv[3])})
