"""A chat dataset in tokens: made once for each tokenizer, template and way of masking, beside its records.

tokens/<key>/conversations.json      what it was made from, counts, and the records that were refused
             <split>.ids             the tokens of all conversations end to end, uint16 or uint32
             <split>.trained         a byte for each: whether it is trained
             <split>.ends            where each conversation ends, uint64; all little-endian
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stages.data.conversations import Conversation, Masker, Turns, masking_digest
from stages.data.records import read_records
from stages.data.shards import SPLITS, Advance, filling, little_endian, made_once, mapped, smallest
from stages.data.tokenizer import FILE
from stages.store.datasets import Dataset
from stages.store.errors import UNREADABLE, UserError
from stages.store.files import sha256_file
from stages.store.records import ChatRecord

INFO = "conversations.json"
TOGETHER = 512
"""Conversations that are rendered and encoded at once."""
NAMED = 100
"""Refused records that are named; all are counted."""


class Refusal(msgspec.Struct, frozen=True):
    """A record that cannot be trained on. `record` counts from 1 within its split."""

    split: str
    record: int
    source: str
    why: str

    def __str__(self) -> str:
        where = f" from {self.source}" if self.source else ""
        return f"record {self.record:,} of {self.split}{where}: {self.why}"


class SplitInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of one split."""

    conversations: int
    tokens: int
    trained: int
    longest: int = 0
    """Tokens of the longest conversation."""
    cut: int = 0
    """Conversations that lost turns to fit the context."""
    turns_cut: int = 0
    refused: int = 0


class ConversationsInfo(msgspec.Struct, frozen=True, kw_only=True):
    """conversations.json."""

    dataset_digest: str
    tokenizer_digest: str
    masking_digest: str
    dtype: str
    splits: dict[str, SplitInfo]
    refused: list[Refusal] = []
    schema: int = 1


class Conversations(NamedTuple):
    """One split in tokens, mapped from disk. `starts` has one entry more than there are conversations."""

    ids: NDArray[np.unsignedinteger]
    trained: NDArray[np.uint8]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each conversation: (conversations,)."""
        return np.diff(self.starts)


class ConversationSet(NamedTuple):
    """A chat dataset in tokens."""

    train: Conversations
    val: Conversations
    info: ConversationsInfo


def conversation_shards(
    dataset: Dataset, folder: Path, *, template: str, turns: Turns, context: int, progress: Advance | None = None
) -> ConversationSet:
    """The dataset in tokens of the tokenizer in `folder`, written by `template` (its text).

    Made on the first call, under a lock and complete or not at all. Raises UserError for a dataset of another kind, and
    when no record of train can be trained on.
    """
    if dataset.info.kind != "chat":
        raise UserError(
            f"The dataset {dataset.name!r} holds records of kind {dataset.info.kind}, not conversations.",
            "Choose a dataset of kind chat.",
        )
    tokenizer = sha256_file(folder / FILE)
    masking = masking_digest(template, turns, context)
    target = dataset.path / "tokens" / f"{tokenizer[:32]}-{masking[:32]}"
    advance = progress or (lambda done, total: None)

    def make() -> None:
        with Masker(folder, turns=turns, context=context, text=template) as masker:
            _make(target, dataset, masker, tokenizer, masking, advance)

    return made_once(
        target, lambda: _open(target, dataset, tokenizer, masking), make, lambda: advance(0, record_count(dataset))
    )


def _make(folder: Path, dataset: Dataset, masker: Masker, tokenizer: str, masking: str, advance: Advance) -> None:
    dtype = smallest(masker.encoder.text.vocab_size)
    with filling(folder, 3 * sum(dataset.info.bytes.values())) as temporary:
        splits, refused, done = {}, list[Refusal](), 0
        for split in SPLITS:
            writer = _Writer(temporary, split, dtype)
            for outcomes in _masked(dataset, split, masker):
                for source, outcome in outcomes:
                    writer.add(source, outcome)
                done += len(outcomes)
                advance(done, record_count(dataset))
            splits[split] = writer.close()
            refused += writer.refused
        info = ConversationsInfo(
            dataset_digest=dataset.info.digest,
            tokenizer_digest=tokenizer,
            masking_digest=masking,
            dtype=dtype,
            splits=splits,
            refused=refused[:NAMED],
        )
        (temporary / INFO).write_bytes(msgspec.json.format(msgspec.json.encode(info), indent=1))


def _masked(dataset: Dataset, split: str, masker: Masker) -> Iterator[list[tuple[str, Conversation | UserError]]]:
    """Sources and outcomes of a split's records, some at a time."""
    records = (record for record in read_records(dataset, split) if isinstance(record, ChatRecord))
    while some := list(islice(records, TOGETHER)):
        outcomes = masker.mask_all([record.messages for record in some])
        yield [(record.source, outcome) for record, outcome in zip(some, outcomes, strict=True)]


class _Writer:
    """The three files of one split, streaming."""

    def __init__(self, folder: Path, split: str, dtype: str) -> None:
        self._split, self._dtype = split, little_endian(dtype)
        self._files = {name: (folder / f"{split}.{name}").open("wb") for name in ("ids", "trained", "ends")}
        self._tokens = self._trained = self._longest = self._cut = self._turns_cut = 0
        self._kept = self._seen = self._refused = 0
        self.refused: list[Refusal] = []

    def add(self, source: str, outcome: Conversation | UserError) -> None:
        self._seen += 1
        if isinstance(outcome, UserError):
            self._refused += 1
            if len(self.refused) < NAMED:
                self.refused.append(Refusal(self._split, self._seen, source, outcome.title))
            return
        self._tokens += len(outcome.ids)
        self._trained += sum(outcome.trained)
        self._longest = max(self._longest, len(outcome.ids))
        self._cut += outcome.turns_cut > 0
        self._turns_cut += outcome.turns_cut
        self._kept += 1
        self._files["ids"].write(np.array(outcome.ids, self._dtype).data)
        self._files["trained"].write(bytes(outcome.trained))
        self._files["ends"].write(self._tokens.to_bytes(8, "little"))

    def close(self) -> SplitInfo:
        for file in self._files.values():
            file.close()
        return SplitInfo(
            conversations=self._kept,
            tokens=self._tokens,
            trained=self._trained,
            longest=self._longest,
            cut=self._cut,
            turns_cut=self._turns_cut,
            refused=self._refused,
        )


def _open(folder: Path, dataset: Dataset, tokenizer: str, masking: str) -> ConversationSet | None:
    """Map the files; None when they are missing, incomplete, or made from something else."""
    try:
        info = msgspec.json.decode((folder / INFO).read_bytes(), type=ConversationsInfo)
    except UNREADABLE:
        return None
    made_from = (info.dataset_digest, info.tokenizer_digest, info.masking_digest)
    if made_from != (dataset.info.digest, tokenizer, masking) or info.dtype not in ("uint16", "uint32"):
        return None
    splits = [_open_split(folder, split, info) for split in SPLITS]
    train, val = splits
    return None if train is None or val is None else ConversationSet(train, val, info)


def _open_split(folder: Path, split: str, info: ConversationsInfo) -> Conversations | None:
    counts = info.splits[split]
    ids = mapped(folder / f"{split}.ids", counts.tokens, info.dtype)
    trained = mapped(folder / f"{split}.trained", counts.tokens, "uint8")
    ends = mapped(folder / f"{split}.ends", counts.conversations, "uint64")
    if ids is None or trained is None or ends is None:
        return None
    return Conversations(ids, trained, np.concatenate([[0], ends.astype(np.int64)]))


def record_count(dataset: Dataset) -> int:
    """Records of all splits."""
    return sum(dataset.info.records.values())
