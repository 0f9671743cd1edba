"""Choosing the validation part: by a hash of each document, or the end of the corpus."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

import msgspec

from stages.store.records import LabelledRecord, Record, TextRecord

FEW = 1_000
"""Equal records that are held back, at most, to be the validation part where no other is."""


class Split(NamedTuple):
    """`documents:0.1`, `tail:0.1` or `none`, taken apart."""

    how: Literal["documents", "tail", "none"]
    share: float

    @classmethod
    def parse(cls, text: str) -> Split:
        """As the settings write it, which the spec has checked."""
        how, _, share = text.partition(":")
        if how == "documents":
            return cls("documents", float(share))
        return cls("tail", float(share)) if how == "tail" else cls("none", 0.0)


def by_document(records: Iterable[Record], share: float, seed: int) -> Iterator[tuple[str, Record]]:
    """Each record with its split: val where the record's place falls below `share`.

    A few documents may all stand above it; then the lowest of them is val, with those that are equal to it, so that two
    documents are enough.
    """
    lowest, held = math.inf, list[Record]()
    validated = trained = False
    for record in records:
        at = place(key_of(record), seed)
        if at < share:
            validated = True
            yield "val", record
        elif validated or at > lowest:
            trained = True
            yield "train", record
        else:
            beaten = held if at < lowest else []
            held = [record] if at < lowest else [*held, record]
            lowest = at
            if len(held) > FEW:  # these are no few documents
                beaten, held, lowest = held, [], math.nextafter(at, 0.0)
            trained = trained or bool(beaten)
            yield from (("train", each) for each in beaten)
    yield from (("val" if trained and not validated else "train", each) for each in held)


def key_of(record: Record) -> str:
    """What decides the split: the text, or what is asked first, so that all answers to one prompt stay together."""
    match record:
        case TextRecord():
            return record.text
        case LabelledRecord():
            return "\n".join(record.texts)
        case _:
            opening = itertools.takewhile(lambda message: message.role != "assistant", record.messages)
            return "\n".join(message.content for message in opening)


def place(text: str, seed: int) -> float:
    """A number in [0, 1) drawn from this text alone, so that equal records stay together."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=str(seed).encode()).digest()
    return int.from_bytes(digest, "big") / 2**64


def cut_tail(records: Iterable[TextRecord], characters: int, share: float) -> Iterator[tuple[str, TextRecord]]:
    """Each record with its split: the last `share` of the `characters` is val. The record at the border is cut in two.

    The first int(characters · (1 − share)) characters are train, as in nanoGPT's data preparation.
    """
    left = int(characters * (1 - share))
    for record in records:
        head, tail = record.text[:left], record.text[left:]
        left -= len(head)
        if head:
            yield "train", msgspec.structs.replace(record, text=head)
        if tail:
            yield "val", msgspec.structs.replace(record, text=tail)
