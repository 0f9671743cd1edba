"""Records as T5 sees them: a text that is read, and the text that is to be written.

    classify   banking77: I have lost my card          →  lost_or_stolen_card
    pair       nli: text1: … text2: …                  →  entailment
    choice     quiz: question: … choices: (A) … (B) …  →  the option that is right
    tokens     ner: the words of a text                →  their labels
    chat       what was said so far                    →  what the assistant says, a pair for each turn that is learnt
    prompts    what is asked                           →  the answer

Source: Raffel et al., T5 (arXiv 1910.10683), section 2.4 and appendix D.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from string import ascii_uppercase
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.data.order import order_at
from stages.data.records import read_records
from stages.data.tokenizer import TextTokenizer
from stages.models.loss import IGNORED
from stages.store.datasets import Dataset
from stages.store.errors import UserError
from stages.store.records import ChatRecord, LabelledRecord, Message, PromptRecord, Record

KINDS = ("labelled", "chat", "prompts")
TOGETHER = 512
"""Pairs that are tokenized at once."""

Ints = NDArray[np.int64]


class Pair(NamedTuple):
    """What is read, and what is to be written."""

    read: str
    written: str


class Batch(NamedTuple):
    """Texts for one forward pass, padded: read (B, S), of which the first lengths (B,) count; targets (B, T)."""

    read: Ints
    lengths: Ints
    targets: Ints


def prefix_of(dataset: Dataset, asked: str | None) -> str:
    """What stands before every text of this dataset: as asked, else as the head of this file shows."""
    if asked is not None:
        return asked
    return f"{dataset.name}: " if dataset.info.kind == "labelled" else ""


def pairs_of(record: Record, prefix: str) -> list[Pair]:
    """What a record teaches. Nothing for one without an answer."""
    match record:
        case LabelledRecord():
            return [Pair(prefix + _question(record), _answer(record))]
        case ChatRecord():
            turns = enumerate(record.messages)
            learnt = [n for n, message in turns if n and message.role == "assistant" and message.train is not False]
            return [Pair(prefix + said(record.messages[:n]), record.messages[n].content) for n in learnt]
        case PromptRecord():
            return [] if record.answer is None else [Pair(prefix + said(record.messages), record.answer)]
    raise UserError(
        "Text-to-text tuning learns from labelled data, conversations, and prompts with answers.",
        "Choose a dataset of one of these kinds.",
    )


def said(messages: Sequence[Message]) -> str:
    """A conversation in words: the question alone, or every turn after the name of who speaks."""
    if len(messages) == 1:
        return messages[0].content
    return "\n".join(f"{message.role}: {message.content}" for message in messages)


def read_pairs(dataset: Dataset, split: str, prefix: str) -> Iterator[Pair]:
    """The pairs of a split, in order, streaming. UserError for a dataset of another kind."""
    return (pair for record in read_records(dataset, split) for pair in pairs_of(record, prefix))


class Pairs:
    """The pairs of one split in tokens, in memory: four bytes a token."""

    def __init__(
        self,
        pairs: Iterator[Pair],
        tokenizer: TextTokenizer,
        *,
        room: int,
        longest: int,
        progress: Callable[[int], object] = lambda _: None,
    ) -> None:
        """room: tokens that are read at most, the end included; longest: tokens that are written."""
        self._end = tokenizer.eos_id
        self.cut = self.refused = 0
        self._read: list[NDArray[np.uint32]] = []
        self._written: list[NDArray[np.uint32]] = []
        while some := list(islice(pairs, TOGETHER)):
            reads, answers = (tokenizer.encode_batch([pair[side] for pair in some]) for side in (0, 1))
            for read, written in zip(reads, answers, strict=True):
                self._take(read, written, room - 1, longest)
            progress(len(some))
        self.sizes = np.array([len(a) + len(b) + 2 for a, b in zip(self._read, self._written, strict=True)], np.int64)
        """Tokens of each pair, ends included."""

    def __len__(self) -> int:
        return len(self._read)

    def order(self, position: int, count: int, seed: int) -> Ints:
        """Which pairs stand at these places of the endless training order: (count,)."""
        return order_at(position, count, len(self), seed)

    def costliest(self, count: int) -> Ints:
        """The `count` pairs that need most memory, again where there are fewer."""
        return np.resize(np.argsort(-self.sizes, kind="stable"), count)

    def targets(self, numbers: Ints) -> int:
        """Tokens that these pairs ask for, ends included."""
        return sum(len(self._written[number]) + 1 for number in numbers)

    def read(self, number: int) -> list[int]:
        """What is read of a pair, its end included."""
        return [*self._read[number].tolist(), self._end]

    def written(self, number: int) -> list[int]:
        """What is to be written, without the end."""
        return self._written[number].tolist()

    def batch(self, numbers: Ints) -> Batch:
        """These pairs together."""
        reads = [self.read(int(number)) for number in numbers]
        answers = [[*self.written(int(number)), self._end] for number in numbers]
        lengths = np.array([len(read) for read in reads])
        return Batch(_padded(reads, 0), lengths, _padded(answers, IGNORED))

    def _take(self, read: list[int], written: list[int], room: int, longest: int) -> None:
        if not written or len(written) > longest:
            self.refused += 1
            return
        self.cut += len(read) > room
        self._read.append(np.array(read[:room], np.uint32))
        self._written.append(np.array(written, np.uint32))


def _padded(rows: list[list[int]], pad: int) -> Ints:
    full = np.full((len(rows), max(map(len, rows))), pad, np.int64)
    for number, row in enumerate(rows):
        full[number, : len(row)] = row
    return full


def _question(record: LabelledRecord) -> str:
    if record.task == "pair":
        return f"text1: {record.texts[0]} text2: {record.texts[1]}"
    if record.task == "choice":
        letters = zip(ascii_uppercase, record.texts[1:], strict=False)
        return f"question: {record.texts[0]} choices: {' '.join(f'({letter}) {text}' for letter, text in letters)}"
    return " ".join(record.texts) if record.task == "tokens" else record.texts[0]


def _answer(record: LabelledRecord) -> str:
    if record.task == "tokens":
        return " ".join(record.labels or ())
    label = record.label or ""
    return record.texts[1 + int(label)] if record.task == "choice" else label
