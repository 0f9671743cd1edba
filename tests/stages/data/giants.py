"""Hostile files of any size, and what building from one takes. A process of its own: `giants.py FOLDER FORM MEGABYTES`.

Prints JSON: peak memory above idle in MB, the longest silence in seconds (for so long would a cancelled build go on),
records, problems and the refusal, if there was one.
"""

from __future__ import annotations

import gzip
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

MILLION = 1_000_000


def one_line(start: bytes, end: bytes) -> Callable[[int], Iterator[bytes]]:
    """A line of so many megabytes, and a good record after it."""

    def write(megabytes: int) -> Iterator[bytes]:
        yield start
        for _ in range(megabytes):
            yield b"x" * MILLION
        yield end

    return write


def deep(megabytes: int) -> Iterator[bytes]:
    yield b'[{"prompt": "Q", "completion": "A", "m": ' + b"[" * 100_000 + b"]" * 100_000 + b"},\n"
    yield b'{"prompt": "Q", "completion": "A"}]'


def unclosed(megabytes: int) -> Iterator[bytes]:
    yield b'[{"prompt": "Q", "completion": "A"},\n'
    for _ in range(megabytes):
        yield b'{"a":' * 200_000


def columns(megabytes: int) -> Iterator[bytes]:
    yield b",".join(b"c%d" % n for n in range(megabytes * 1_000)) + b"\n"
    yield b",".join(b"%d" % n for n in range(megabytes * 1_000)) + b"\n"


def many_cells(megabytes: int) -> Iterator[bytes]:
    yield b"text,label\n"
    for _ in range(megabytes):
        yield b",".join([b"ab"] * 300_000) + b"\n"


def open_quote(megabytes: int) -> Iterator[bytes]:
    yield b'text,label\n"open\n'
    for _ in range(megabytes):
        yield (b"words " * 16_666 + b",x\n") * 10


GIANTS: dict[str, Callable[[int], Iterator[bytes]]] = {
    "line.txt": one_line(b"first\n", b"\nlast\n"),
    "line.jsonl": one_line(b'{"text": "', b'"}\n{"text": "good"}\n'),
    "line.json": one_line(b'[{"text": "', b'"},\n{"text": "good"}]'),
    "object.json": one_line(b'{"about": "', b'", "data": [{"text": "good"}]}'),
    "line.csv": one_line(b'text,label\n"', b'",x\ngood,y\n'),
    "bomb.jsonl.gz": one_line(b'{"text": "', b'"}\n'),
    "bomb.txt.gz": one_line(b"", b"\n"),
    "bomb.csv.gz": one_line(b'text,label\n"', b'",x\n'),
    "deep.json": deep,
    "deep.jsonl": deep,
    "unclosed.json": unclosed,
    "columns.csv": columns,
    "cells.csv": many_cells,
    "quote.csv": open_quote,
}


def make(path: Path, megabytes: int) -> None:
    """Write the giant that the file's name says."""
    with path.open("wb") as raw:
        packed = gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=1) if path.suffix == ".gz" else nullcontext(raw)
        with packed as file:
            for part in GIANTS[path.name](megabytes):
                file.write(part)


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main(folder: Path, name: str, megabytes: int) -> None:
    from stages.build import build_dataset
    from stages.store.errors import UserError
    from stages.store.specs.build import Build

    make(folder / name, megabytes)
    (folder / "out").mkdir()
    (folder / "small.jsonl").write_text('{"text": "good"}\n')
    told = [time.monotonic()]
    silence = 0.0

    def progress(phase: str, done: int, total: int) -> None:
        nonlocal silence
        silence, told[0] = max(silence, time.monotonic() - told[0]), time.monotonic()

    (folder / "warm").mkdir()
    build_dataset(folder / "warm", "w", Build(sources=[str(folder / "small.jsonl")], split="none"), progress)
    idle, silence, told[0] = peak(), 0.0, time.monotonic()
    found = {"records": 0, "problems": 0, "refused": ""}
    try:
        info = build_dataset(folder / "out", "d", Build(sources=[str(folder / name)], split="none"), progress)
        found |= {"records": sum(info.records.values()), "problems": info.problem_count}
    except UserError as error:
        found["refused"] = str(error)
    progress("end", 0, 0)
    print(json.dumps(found | {"memory": peak() - idle, "silence": silence}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
