"""A preference dataset in tokens: made once for each tokenizer and template, beside its records.

tokens/<key>/preferences.json   what it was made from, counts, and the prompts that were refused
             <split>.<column>   little-endian: see `COLUMNS`

Each completion stands there with its prompt before it, written by the chat template as a turn of the assistant. One
that does not fit the context is dropped; a prompt of which fewer than two are left is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stages.data.conversation_shards import NAMED, Refusal, record_count
from stages.data.conversations import Conversation, Masker, masking_digest
from stages.data.records import read_records
from stages.data.shards import SPLITS, Advance, filling, little_endian, made_once, mapped, smallest
from stages.data.tokenizer import FILE
from stages.store.datasets import Dataset
from stages.store.errors import UNREADABLE, UserError
from stages.store.files import sha256_file
from stages.store.records import Message, PreferenceRecord

INFO = "preferences.json"
TOGETHER = 128
"""Prompts that are rendered and encoded at once."""

COLUMNS = {
    "trained": "uint8",
    "ends": "uint64",
    "ranks": "int16",
    "scores": "float32",
    "groups": "uint64",
    "records": "uint64",
}
"""dtypes of the files beside `ids`. trained: a byte a token. ends, ranks, scores: a number a completion. groups
(completions up to here) and records (the record's number in its split, from 0): a number a prompt."""


class PreferenceInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of one split."""

    prompts: int
    completions: int
    tokens: int
    longest: int = 0
    """Tokens of the longest completion with its prompt."""
    dropped: int = 0
    """Completions that do not fit the context."""
    refused: int = 0
    """Prompts left with fewer than two completions."""


class PreferencesInfo(msgspec.Struct, frozen=True, kw_only=True):
    """preferences.json."""

    dataset_digest: str
    tokenizer_digest: str
    masking_digest: str
    dtype: str
    splits: dict[str, PreferenceInfo]
    refused: list[Refusal] = []
    schema: int = 1


class Preferences(NamedTuple):
    """One split, mapped from disk. Completion c is tokens starts[c] to starts[c + 1], the prompt's among them.

    Prompt g is answered by completions groups[g] to groups[g + 1]. ranks: 1 is best, ties are equal. scores: NaN where
    none were given. records: which record of the split a prompt is. `starts` and `groups` have one entry more.
    """

    ids: NDArray[np.unsignedinteger]
    trained: NDArray[np.uint8]
    starts: NDArray[np.int64]
    ranks: NDArray[np.int16]
    scores: NDArray[np.float32]
    groups: NDArray[np.int64]
    records: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.groups) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each completion with its prompt."""
        return np.diff(self.starts)

    def completion(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Tokens of a completion with its prompt, and which of them are the completion's, its end of turn included."""
        start, end = self.starts[number : number + 2]
        return self.ids[start:end].astype(np.int64), self.trained[start:end] != 0

    def members(self, prompt: int) -> range:
        """The completions of a prompt."""
        return range(int(self.groups[prompt]), int(self.groups[prompt + 1]))


class PreferenceSet(NamedTuple):
    """A preference dataset in tokens."""

    train: Preferences
    val: Preferences
    info: PreferencesInfo


def preference_shards(
    dataset: Dataset, folder: Path, *, template: str, context: int, progress: Advance | None = None
) -> PreferenceSet:
    """The dataset in tokens of the tokenizer in `folder`, written by `template` (its text); made on the first call.

    `progress` is told the prompts done and in all. Raises UserError for a dataset of another kind.
    """
    if dataset.info.kind != "preference":
        raise UserError(
            f"The dataset {dataset.name!r} holds records of kind {dataset.info.kind}, not preferences.",
            "Choose one of kind preference; `workbench data from-labels` makes one of your labels.",
        )
    tokenizer = sha256_file(folder / FILE)
    masking = masking_digest(template, "last", context)
    target = dataset.path / "tokens" / f"{tokenizer[:32]}-{masking[:32]}"
    advance = progress or (lambda done, total: None)

    def make() -> None:
        with Masker(folder, turns="last", context=context, text=template) as masker:
            _make(target, dataset, masker, tokenizer, masking, advance)

    return made_once(
        target, lambda: _open(target, dataset, tokenizer, masking), make, lambda: advance(0, record_count(dataset))
    )


def _make(folder: Path, dataset: Dataset, masker: Masker, tokenizer: str, masking: str, advance: Advance) -> None:
    dtype = smallest(masker.encoder.text.vocab_size)
    with filling(folder, 12 * sum(dataset.info.bytes.values())) as temporary:  # the prompt again with each completion
        splits, refused, done = {}, list[Refusal](), 0
        for split in SPLITS:
            with _Writer(temporary, split, dtype) as writer:
                for some in _batches(dataset, split):
                    for record, outcomes in zip(some, _masked(some, masker), strict=True):
                        writer.add(record, outcomes)
                    done += len(some)
                    advance(done, record_count(dataset))
            splits[split] = writer.info()
            refused += writer.refused
        info = PreferencesInfo(
            dataset_digest=dataset.info.digest,
            tokenizer_digest=tokenizer,
            masking_digest=masking,
            dtype=dtype,
            splits=splits,
            refused=refused[:NAMED],
        )
        (temporary / INFO).write_bytes(msgspec.json.format(msgspec.json.encode(info), indent=1))


def _batches(dataset: Dataset, split: str) -> Iterator[list[PreferenceRecord]]:
    records = (record for record in read_records(dataset, split) if isinstance(record, PreferenceRecord))
    while some := list(islice(records, TOGETHER)):
        yield some


def _masked(records: list[PreferenceRecord], masker: Masker) -> Iterator[list[Conversation | UserError]]:
    """The completions of each record in tokens."""
    said = [
        [*(Message(message.role, message.content) for message in record.messages), Message("assistant", completion)]
        for record in records
        for completion in record.completions
    ]
    outcomes = iter(masker.mask_all(said))
    for record in records:
        yield list(islice(outcomes, len(record.completions)))


class _Writer:
    """The files of one split, streaming."""

    def __init__(self, folder: Path, split: str, dtype: str) -> None:
        self._split = split
        self._dtypes = {name: little_endian(kind) for name, kind in {"ids": dtype, **COLUMNS}.items()}
        self._files = {name: (folder / f"{split}.{name}").open("wb") for name in self._dtypes}
        self._seen = self._prompts = self._completions = self._tokens = self._longest = self._dropped = 0
        self._refused = 0
        self.refused: list[Refusal] = []

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def add(self, record: PreferenceRecord, outcomes: list[Conversation | UserError]) -> None:
        self._seen += 1
        kept = [(place, found) for place, found in enumerate(outcomes) if isinstance(found, Conversation)]
        self._dropped += len(outcomes) - len(kept)
        if len(kept) < 2:
            self._refuse(record, outcomes)
            return
        for place, found in kept:
            self._tokens += len(found.ids)
            self._longest = max(self._longest, len(found.ids))
            self._put("ids", found.ids)
            self._put("trained", found.trained)
            self._put("ends", [self._tokens])
            self._put("ranks", [record.ranks[place]])
            self._put("scores", [record.scores[place] if record.scores else math.nan])
        self._completions += len(kept)
        self._prompts += 1
        self._put("groups", [self._completions])
        self._put("records", [self._seen - 1])

    def info(self) -> PreferenceInfo:
        return PreferenceInfo(
            prompts=self._prompts,
            completions=self._completions,
            tokens=self._tokens,
            longest=self._longest,
            dropped=self._dropped,
            refused=self._refused,
        )

    def _refuse(self, record: PreferenceRecord, outcomes: list[Conversation | UserError]) -> None:
        self._refused += 1
        if len(self.refused) < NAMED:
            why = next((found.title for found in outcomes if isinstance(found, UserError)), "it has no two completions")
            self.refused.append(Refusal(self._split, self._seen, record.source, why))

    def _put(self, name: str, values: Any) -> None:
        self._files[name].write(np.array(values, self._dtypes[name]).data)


def _open(folder: Path, dataset: Dataset, tokenizer: str, masking: str) -> PreferenceSet | None:
    """Map the files; None when they are missing, incomplete, or made from something else."""
    try:
        info = msgspec.json.decode((folder / INFO).read_bytes(), type=PreferencesInfo)
    except UNREADABLE:
        return None
    made_from = (info.dataset_digest, info.tokenizer_digest, info.masking_digest)
    if made_from != (dataset.info.digest, tokenizer, masking) or info.dtype not in ("uint16", "uint32"):
        return None
    train, val = (_open_split(folder, split, info) for split in SPLITS)
    return None if train is None or val is None else PreferenceSet(train, val, info)


def _open_split(folder: Path, split: str, info: PreferencesInfo) -> Preferences | None:
    counts = info.splits[split]
    sizes = {"ids": counts.tokens, "trained": counts.tokens, "groups": counts.prompts, "records": counts.prompts}
    found = {
        name: mapped(folder / f"{split}.{name}", sizes.get(name, counts.completions), kind)
        for name, kind in {"ids": info.dtype, **COLUMNS}.items()
    }
    columns = {name: column for name, column in found.items() if column is not None}
    if len(columns) < len(found):
        return None
    starts, groups = (np.concatenate([[0], columns.pop(name).astype(np.int64)]) for name in ("ends", "groups"))
    return Preferences(starts=starts, groups=groups, **columns)
