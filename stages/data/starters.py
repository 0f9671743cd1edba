"""The starter data as records: files of hand-made examples, and the starter world, which is generated."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import msgspec

from stages.data.world import (
    PARTS,
    TASKS,
    conversations,
    labelled,
    lesson_conversations,
    lesson_documents,
    preferences,
    pretraining_documents,
    questions,
)
from stages.data.world.lessons import FAMILIES
from stages.store.datasets import Kind, Source
from stages.store.records import KINDS, Record
from stages.store.sources import STARTERS
from stages.store.workspace import installation_root

RANKED = 4_000
"""Ranked prompts of starter:world-preferences."""

DEMO_RANKED = 8_000
"""Rankings of all families that those of starter:demo-preferences are picked from."""

FLIPPED = 0.1
"""Share of them that are ranked the wrong way round in the starters that are called flipped."""


def starter_kind(name: str) -> Kind:
    """The kind of a starter source's records."""
    return STARTERS[name][0]


def starter_records(name: str, advance: Callable[[int], None]) -> Iterator[Record]:
    """The records of a starter source. `advance` is told the bytes of each."""
    struct = KINDS[starter_kind(name)]
    for row in _rows(name):
        advance(len(msgspec.json.encode(row)))
        meta = dict(row.get("meta", {}))
        source = row.get("source") or meta.pop("source", None) or name.removeprefix("starter:").partition("-")[0]
        label = {"label": str(row["label"])} if isinstance(row.get("label"), int) else {}
        yield msgspec.convert({**row, **label, "source": source, "meta": meta}, struct)


def starter_source(name: str) -> Source:
    """Size and digest of a starter source."""
    digest, size = hashlib.sha256(), 0
    for row in _rows(name):
        line = msgspec.json.encode(row)
        digest.update(line)
        size += len(line)
    return Source(name, size, digest.hexdigest(), "starter data")


def _rows(name: str) -> Iterator[dict[str, Any]]:
    what = name.removeprefix("starter:")
    _, _, part = what.partition("-")
    file = installation_root() / "assets" / "starter" / f"{what}.jsonl"
    if what.partition("-")[0] == "demo":
        return _demo_rows(part)
    if what == "world":
        return pretraining_documents()
    if what == "world-chat":
        return conversations()
    if what == "world-preferences":
        return preferences("reward", RANKED)
    if what == "world-preferences-flipped":
        return preferences("reward", RANKED, flipped=FLIPPED)
    if what == "world-questions":
        return chain.from_iterable(questions(one) for one in PARTS)
    if what == "world-labelled":
        return labelled()
    if part in PARTS:
        return questions(part)
    if part in TASKS:
        return labelled(part)
    return (msgspec.json.decode(line) for line in file.read_bytes().splitlines())


def _demo_rows(part: str) -> Iterator[dict[str, Any]]:
    """The rows of the world that are about the demo's families alone: what a small model learns in minutes."""
    rows: Iterator[dict[str, Any]]
    if part == "chat":
        rows = lesson_conversations()
    elif part == "preferences":
        rows = preferences("reward", DEMO_RANKED)
    elif part == "preferences-flipped":
        rows = preferences("reward", DEMO_RANKED, flipped=FLIPPED)
    elif part == "policy" or part == "eval":
        rows = questions("policy" if part == "policy" else "eval")
    else:
        rows = lesson_documents()
    return (row for row in rows if row["meta"]["family"] in FAMILIES)
