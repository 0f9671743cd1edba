"""Training a tokenizer on a dataset, and measuring it on text that it was not trained on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import tokenizers

from stages.data.cutting import cut_for_encoding
from stages.data.records import read_all_texts
from stages.data.tokenizer import (
    FILE,
    TextTokenizer,
    save_tokenizer,
    special_ids,
    train_tokenizer,
)
from stages.data.vocabularies import Words
from stages.run import Run
from stages.store.building import building
from stages.store.datasets import Dataset
from stages.store.errors import UserError
from stages.store.files import sha256_file, write_atomic
from stages.store.specs.tokenizer import Tokenizer
from stages.store.tokenizers import INFO, TokenizerInfo

CHECKED_DOCUMENTS = 10_000
"""Documents that are encoded and decoded again, at most."""

LEAST = 260
"""Entries of a vocabulary: the bytes and the special tokens."""

POLL = 0.1
"""Seconds between looks at requests while the library is at work."""


def run(run: Run) -> dict[str, Any]:
    """Train the tokenizer that has the run's name; what came out."""
    settings = run.settings(Tokenizer)
    dataset = run.dataset()
    if settings.vocab_size - settings.sentinels < LEAST:
        raise UserError(f"A vocabulary has {LEAST} entries at least, besides sentinels.", "Raise vocab_size.")
    with building(run.workspace.tokenizers, run.spec.name, "tokenizer", replace=settings.replace) as folder:
        sample = Sample(dataset, settings.sample_megabytes * 1_000_000, settings.sample_share)
        trained = _train(run, sample, settings)
        save_tokenizer(trained, folder)
        tokenizer = TextTokenizer.load(folder)
        run.progress(sample.total, sample.total, unit="bytes", phase="checking")
        quality = measure(tokenizer, dataset)
        info = TokenizerInfo(
            name=run.spec.name,
            type=settings.type,
            vocab_size=tokenizer.vocab_size,
            digest=sha256_file(folder / FILE),
            special=special_ids(trained),
            dataset=dataset.name,
            dataset_digest=dataset.info.digest,
            sample_bytes=0 if settings.type == "byte" else sample.done,
            sample="none" if settings.type == "byte" else sample.sentence,
            notes=notes(settings, tokenizer.vocab_size),
            bytes_per_token=quality.bytes_per_token,
            round_trips=quality.round_trips,
            round_trip_checked=quality.checked,
            settings=msgspec.to_builtins(settings),
            run=run.dir.id,
            created=time.time(),
        )
        _write_info(folder, info)
    for note in too_few(settings, info.vocab_size):
        (run.warn if as_asked(settings) else run.tell)(note)
    return {
        "tokenizer": info.name,
        "vocab_size": info.vocab_size,
        "bytes_per_token": info.bytes_per_token,
        "round_trips": info.round_trips,
        "round_trip_checked": info.round_trip_checked,
    }


class Sample:
    """Training text of a dataset: a share of it, at most `limit` bytes, taken evenly from all records of any kind.

    The same pieces each time it is gone through. Counts what was read, each time anew.
    """

    def __init__(self, dataset: Dataset, limit: int, share: float = 1.0) -> None:
        self._dataset = dataset
        self._everything = dataset.info.bytes.get("train", 0)
        self.total = min(round(self._everything * share), limit)
        self.done = 0

    @property
    def sentence(self) -> str:
        """What was taken, for people."""
        if self.total >= self._everything:
            return "all of the training text"
        return f"{self.done:,} of {self._everything:,} bytes of the training text, in pieces spread evenly over it"

    def __iter__(self) -> Iterator[str]:
        seen = self.done = 0
        for text in read_all_texts(self._dataset, "train"):
            for piece in cut_for_encoding(text):
                size = len(piece.encode())
                if self.done * self._everything <= self.total * seen and self.done < self.total:
                    yield piece
                    self.done += size
                seen += size


def notes(settings: Tokenizer, size: int) -> list[str]:
    """What a tokenizer so trained, with a vocabulary of `size`, does not do."""
    found = too_few(settings, size)
    if settings.type == "wordpiece":
        found.append(
            "WordPiece does not keep white space, nor what its normaliser changes: texts do not come back exactly."
        )
    if settings.type == "unigram":
        found.append("Trained again on the same text, a unigram vocabulary may come out a little different.")
    return found


def too_few(settings: Tokenizer, size: int) -> list[str]:
    """Why the vocabulary has fewer entries than were asked for; nothing where it has them all."""
    if settings.type == "byte" or size >= settings.vocab_size:
        return []
    why = (
        "the text has no more pieces that are worth one"
        if settings.type == "unigram"
        else "every word of the text is one token already, so that nothing is left to join"
    )
    if not as_asked(settings):
        return [f"The vocabulary has {size:,} tokens, all that this text gives: {why}."]
    return [
        f"The vocabulary has {size:,} tokens, fewer than the {settings.vocab_size:,} asked for: {why}. "
        "More text would give more."
    ]


def as_asked(settings: Tokenizer) -> bool:
    """Whether somebody chose the size of the vocabulary: no default is what they ask for."""
    return settings.vocab_size != Tokenizer().vocab_size


class Quality(NamedTuple):
    """Bytes of text that a token stands for, and how many of the texts that were checked came back exactly."""

    bytes_per_token: float | None
    round_trips: int
    checked: int


def measure(tokenizer: TextTokenizer, dataset: Dataset) -> Quality:
    """Bytes per token, and how many texts decode to themselves, on validation (on training when there is none)."""
    split = "val" if dataset.info.records.get("val") else "train"
    tokens = size = same = checked = 0
    for text in islice(read_all_texts(dataset, split), CHECKED_DOCUMENTS):
        ids = tokenizer.encode(text)
        checked += 1
        same += tokenizer.decode(ids) == text
        tokens += len(ids)
        size += len(text.encode())
    return Quality(size / tokens if tokens else None, same, checked)


def _train(run: Run, sample: Sample, settings: Tokenizer) -> tokenizers.Tokenizer:
    """Train on a thread, so that the run answers while the library works. A thread that is left behind ends with us."""
    outcome: list[tokenizers.Tokenizer | BaseException] = []
    words = Words(settings.lowercase, settings.strip_accents, settings.split_chinese, settings.split_punctuation)

    def work() -> None:
        try:
            outcome.append(
                train_tokenizer(
                    sample,
                    settings.type,
                    settings.vocab_size,
                    split_digits=settings.split_digits,
                    sentinels=settings.sentinels,
                    words=words,
                )
            )
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            outcome.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while thread.is_alive():
        phase = "counting words" if sample.done < sample.total else "merging"
        run.progress(sample.done, sample.total, unit="bytes", phase=phase)
        thread.join(POLL)
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def _write_info(folder: Path, info: TokenizerInfo) -> None:
    write_atomic(folder / INFO, msgspec.json.format(msgspec.json.encode(info), indent=1))
