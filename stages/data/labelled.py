"""Labelled records as a model reads them: sequences shaped by the task, and what is to be said of each.

             decoder                                        encoder
    classify ⟨start⟩ text ⟨end⟩                             [CLS] text [SEP]
    pair     ⟨start⟩ premise ⟨delimiter⟩ hypothesis ⟨end⟩   [CLS] premise [SEP] hypothesis [SEP]
    choice   the same of the question and each option, a sequence an option
    tokens   ⟨start⟩ words                                  [CLS] words [SEP]

A decoder's label is read at its last token, an encoder's at [CLS]; that of a word at its first token by an encoder, at
its last by a decoder, which has seen the whole word only there. Pairs whose order means nothing are read both ways.
Sources: Radford et al., Improving Language Understanding by Generative Pre-Training (2018), section 3.3 and figure 1;
Devlin et al., BERT (arXiv 1810.04805), figure 4. N tokens, S sequences, E records, R targets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.data.bert_masks import ENDS, STARTS
from stages.data.order import order_at
from stages.data.records import read_records
from stages.data.tokenizer import TextTokenizer
from stages.data.vocabularies import TURN_START
from stages.store.classifiers import Head
from stages.store.datasets import Dataset
from stages.store.errors import UserError
from stages.store.records import LabelledRecord, Task

TOGETHER = 512
"""Records whose texts are encoded at once."""
MOST_LABELS = 10_000
"""More different labels than this are no classes."""
UNKNOWN = -100
"""Target of a label that the model does not have: the loss passes over it."""

Ints = NDArray[np.int64]


class Marks(NamedTuple):
    """What stands around texts, in tokens."""

    start: list[int]
    delimiter: list[int]
    end: list[int]
    encoder: bool

    @classmethod
    def of(cls, tokenizer: TextTokenizer, *, encoder: bool) -> Marks:
        """An encoder's are its own; a decoder's delimiter is the token that begins a turn, where there is one."""
        if encoder:
            start, end = (_first(tokenizer, names) for names in (STARTS, ENDS))
            return cls([start], [end], [end], True)
        delimiter = tokenizer.id_of(TURN_START)
        end = tokenizer.eos_id
        return cls(tokenizer.start_ids or [end], [end if delimiter is None else delimiter], [end], False)


class Input(NamedTuple):
    """A sequence."""

    ids: list[int]
    second: int
    """Where the second text begins; the length where there is none."""
    cut: bool = False
    """Whether a text had to be shortened."""


class Writer:
    """Writes records as sequences of at most `room` tokens."""

    def __init__(self, tokenizer: TextTokenizer, head: Head, room: int, *, encoder: bool) -> None:
        self.tokenizer, self.head, self.room = tokenizer, head, room
        self.marks = Marks.of(tokenizer, encoder=encoder)

    def inputs(self, texts: list[list[str]]) -> Iterator[list[Input]]:
        """The sequences of each record of the task classify, pair or choice, of its texts."""
        encoded = iter(self.tokenizer.encode_batch([text for some in texts for text in some]))
        for some in texts:
            first, *others = list(islice(encoded, len(some)))
            if self.head.task == "classify":
                yield [self._framed([first])]
            elif self.head.task == "pair" and self.head.both_orders:
                yield [self._framed([first, others[0]]), self._framed([others[0], first])]
            else:
                yield [self._framed([first, other]) for other in others]

    def words(self, words: Sequence[str]) -> tuple[Input, list[int]]:
        """The sequence of a record of the task tokens, and where in it each word is labelled; −1 for one not seen."""
        text = " ".join(words)
        bounds = np.cumsum([0, *(len(word) + 1 for word in words)])
        spans, frame = self.tokenizer.spans(text), self._framed([[]])
        head = len(self.marks.start)
        fits = max(0, self.room - len(frame.ids))
        places = [-1] * len(words)
        for place, (_, start, end) in enumerate(spans[:fits], head):
            last = max(start, end - 1)
            word = int(np.searchsorted(bounds, last, side="right")) - 1
            between = word >= len(words) or last == bounds[word + 1] - 1
            if not between and not (self.marks.encoder and places[word] >= 0):
                places[word] = place
        ids = [*self.marks.start, *(token for token, _, _ in spans[:fits]), *frame.ids[head:]]
        return Input(ids, len(ids), len(spans) > fits), places

    def _framed(self, parts: list[list[int]]) -> Input:
        """One or two texts between their marks. The longer is shortened first, as in BERT's own code."""
        marks = self.marks
        end = [] if self.head.each_token and not marks.encoder else marks.end
        around = len(marks.start) + len(end) + (len(marks.delimiter) if len(parts) > 1 else 0)
        lengths = _shortened([len(part) for part in parts], max(0, self.room - around))
        cut = any(length < len(part) for length, part in zip(lengths, parts, strict=True))
        ids = [*marks.start, *parts[0][: lengths[0]]]
        second = len(ids) + len(marks.delimiter)
        if len(parts) > 1:
            ids += [*marks.delimiter, *parts[1][: lengths[1]]]
        ids += end
        return Input(ids, second if len(parts) > 1 else len(ids), cut)


class Batch(NamedTuple):
    """Records for one forward pass, laid end to end."""

    tokens: Ints
    """(1, N)."""
    documents: Ints
    """(S + 1,): where sequences begin and end."""
    types: Ints
    """(1, N): 0 for a first text, 1 for a second."""
    places: Ints
    """(R,): the tokens at which words are labelled; empty where sequences are."""
    groups: Ints
    """(E + 1,): where the sequences of a record begin and end."""
    targets: Ints
    """(R,): numbers of labels; of multiple choice, of options. UNKNOWN for one that the model does not have."""


class Examples(NamedTuple):
    """The records of one split in tokens."""

    ids: NDArray[np.int32]
    starts: Ints
    """(S + 1,): where sequences begin."""
    seconds: Ints
    """(S,): where second texts begin, in their sequences."""
    groups: Ints
    """(E + 1,): where the sequences of records begin."""
    targets: Ints
    places: Ints
    """Where in its sequence each word is labelled, −1 where it is not seen; empty where sequences are labelled."""
    target_starts: Ints
    """(E + 1,): where the targets of records begin."""
    records: Ints
    """(E,): their numbers in their split."""
    places_in_set: Ints
    """(E,): their numbers among all records of the splits that were read."""
    cut: int
    """Records of which not all was taken in."""
    unfit: int
    """Records left out: without a text, a label, an option or a word that is seen."""

    def __len__(self) -> int:
        return len(self.groups) - 1

    @property
    def sizes(self) -> Ints:
        """Tokens of each record."""
        return np.diff(self.starts[self.groups])

    def order(self, position: int, count: int, seed: int) -> Ints:
        """Which records stand at these places of the endless training order: (count,)."""
        return order_at(position, count, len(self), seed)

    def costliest(self, count: int) -> Ints:
        """The `count` records whose batch needs most memory: those with most tokens, again where there are fewer."""
        return np.resize(np.argsort(-self.sizes, kind="stable"), count)

    def seen(self, numbers: Ints) -> int:
        """Targets of these records that the model is asked about and has a label for."""
        return sum(int((self._own(int(number)) != UNKNOWN).sum()) for number in numbers)

    def batch(self, numbers: Ints) -> Batch:
        """These records together. Words that are not seen are left out."""
        ranges = [range(int(self.groups[n]), int(self.groups[n + 1])) for n in numbers]
        pieces = [self.ids[self.starts[each] : self.starts[each + 1]] for own in ranges for each in own]
        documents, types = _laid_out([len(piece) for piece in pieces], [self.seconds[n] for own in ranges for n in own])
        groups = np.cumsum([0, *map(len, ranges)])
        places = [self._seen(int(n)) + documents[groups[row]] for row, n in enumerate(numbers)] if self._words else []
        return Batch(
            np.concatenate(pieces).astype(np.int64)[None],
            documents,
            types,
            np.concatenate(places) if places else documents[:0],
            groups,
            np.concatenate([self._own(int(n)) for n in numbers]),
        )

    def asked(self, number: int) -> NDArray[np.bool_]:
        """Which targets of a record the model is asked about: all but words that it does not see."""
        own = slice(int(self.target_starts[number]), int(self.target_starts[number + 1]))
        return self.places[own] >= 0 if self._words else np.ones(own.stop - own.start, bool)

    @property
    def _words(self) -> bool:
        return len(self.places) > 0

    def _own(self, number: int) -> Ints:
        start, end = self.target_starts[number : number + 2]
        return self.targets[start:end][self.asked(number)]

    def _seen(self, number: int) -> Ints:
        start, end = self.target_starts[number : number + 2]
        return self.places[start:end][self.asked(number)]


class Survey(NamedTuple):
    """What labels there are in a dataset."""

    tasks: Counter[str]
    """Records of the training part, by task."""
    labels: dict[str, set[str]]
    """By task, in both parts."""
    unlearnt: dict[str, set[str]]
    """Those of them that only the validation part has."""

    def task(self, asked: str, dataset: str) -> Task:
        """The task that is asked for, or the only one there is. UserError where nothing tells, or there is none."""
        if asked == "auto" and len(self.tasks) > 1:
            have = ", ".join(f"{count:,} {task}" for task, count in self.tasks.items())
            raise UserError(f"{dataset!r} has several sorts of records: {have}.", "Say which with --set task=….")
        chosen = next(iter(self.tasks), "") if asked == "auto" else asked
        if chosen not in self.tasks:
            raise UserError(f"{dataset!r} has no record of the task {chosen or 'that is learnt here'}.")
        return chosen  # type: ignore[return-value]  # a record's task is one

    def head(self, task: Task, dataset: str, *, both_orders: bool) -> Head:
        """What a model of this task is to say. UserError where there is nothing to tell apart."""
        labels = in_order(self.labels[task])
        if task != "choice" and len(labels) < 2:
            raise UserError(f"Every record of {dataset!r} has the label {labels[0]!r}: there is nothing to tell apart.")
        if len(labels) > MOST_LABELS:
            raise UserError(f"{dataset!r} has {len(labels):,} different labels, which are no classes.")
        if both_orders and task != "pair":
            raise UserError("Both orders are for pairs of texts.", f"Leave both_orders off for the task {task}.")
        return Head(task=task, labels=[] if task == "choice" else labels, both_orders=both_orders)


def survey(dataset: Dataset) -> Survey:
    """Tasks and labels of a dataset. UserError for one of another kind."""
    if dataset.info.kind != "labelled":
        raise UserError(
            f"The dataset {dataset.name!r} holds records of kind {dataset.info.kind}, which have no labels.",
            "Choose a dataset of kind labelled.",
        )
    tasks, labels, learnt = Counter[str](), dict[str, set[str]](), dict[str, set[str]]()
    for split in ("train", "val"):
        for record in labelled_records(dataset, split):
            own = record.labels if record.task == "tokens" else [record.label]
            labels.setdefault(record.task, set()).update(label for label in own or [] if label is not None)
            tasks[record.task] += split == "train"
        if split == "train":
            learnt = {task: set(found) for task, found in labels.items()}
    unlearnt = {task: found - learnt.get(task, set()) for task, found in labels.items()}
    return Survey(+tasks, labels, unlearnt)


def in_order(labels: Iterable[str]) -> list[str]:
    """Labels as people would list them: numbers by their size, all else by the alphabet."""
    found = list(labels)
    return sorted(found, key=int) if all(label.isdecimal() and label.isascii() for label in found) else sorted(found)


def read_examples(
    dataset: Dataset,
    splits: Sequence[str],
    writer: Writer,
    *,
    at_most: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> Examples:
    """The records of these splits, one after another, that are of the head's task. `progress`: records done."""
    head = writer.head
    numbers = {label: number for number, label in enumerate(head.labels)}
    ids, starts, seconds, groups = list[NDArray[np.int32]](), [0], list[int](), [0]
    targets, places, ends, records = list[int](), list[int](), [0], list[tuple[int, int]]()
    cut = unfit = 0
    stream = enumerate(pair for split in splits for pair in enumerate(labelled_records(dataset, split)))
    wanted = islice((((n, place), record) for place, (n, record) in stream if record.task == head.task), at_most)
    while some := list(islice(wanted, TOGETHER)):
        for (number, record), inputs, found in zip(some, *_written(writer, [r for _, r in some]), strict=True):
            if not inputs or (head.each_token and not any(place >= 0 for place in found)):
                unfit += 1
                continue
            for each in inputs:
                ids.append(np.array(each.ids, np.int32))
                starts.append(starts[-1] + len(each.ids))
                seconds.append(each.second)
            cut += any(each.cut for each in inputs)
            groups.append(len(seconds))
            targets += _targets(record, numbers)
            places += found
            ends.append(len(targets))
            records.append(number)
        if progress:
            progress(len(some))
    flat = np.concatenate(ids) if ids else np.zeros(0, np.int32)
    return Examples(
        ids=flat,
        starts=np.array(starts, np.int64),
        seconds=np.array(seconds, np.int64),
        groups=np.array(groups, np.int64),
        targets=np.array(targets, np.int64),
        places=np.array(places, np.int64),
        target_starts=np.array(ends, np.int64),
        records=np.array([number for number, _ in records], np.int64),
        places_in_set=np.array([place for _, place in records], np.int64),
        cut=cut,
        unfit=unfit,
    )


def _written(writer: Writer, records: list[LabelledRecord]) -> tuple[list[list[Input]], list[list[int]]]:
    """The sequences of each record, none for one that is unfit, and where its words are labelled."""
    if writer.head.each_token:
        pairs = [writer.words(record.texts) for record in records]
        return [[written] for written, _ in pairs], [places for _, places in pairs]
    fit = [_is_fit(record) for record in records]
    inputs = writer.inputs([record.texts for record, good in zip(records, fit, strict=True) if good])
    return [next(inputs) if good else [] for good in fit], [[] for _ in records]


def _is_fit(record: LabelledRecord) -> bool:
    """Whether a record has the texts and the label of its task, as what people write by hand may not."""
    if record.label is None:
        return False
    if record.task == "choice":
        return len(record.texts) > 1 and record.label.isdecimal() and int(record.label) < len(record.texts) - 1
    return len(record.texts) == (2 if record.task == "pair" else 1)


def _targets(record: LabelledRecord, numbers: dict[str, int]) -> list[int]:
    if record.task == "tokens":
        labels = dict(enumerate(record.labels or []))
        return [numbers.get(labels.get(place, ""), UNKNOWN) for place in range(len(record.texts))]
    if record.task == "choice":
        return [int(record.label or 0)]
    return [numbers.get(record.label or "", UNKNOWN)]


def labelled_records(dataset: Dataset, split: str) -> Iterator[LabelledRecord]:
    """The labelled records of a split, in order, streaming."""
    return (record for record in read_records(dataset, split) if isinstance(record, LabelledRecord))


def batch_of(inputs: Sequence[Input], places: Sequence[int]) -> Batch:
    """One record, of these sequences and places of words, without targets."""
    documents, types = _laid_out([len(one.ids) for one in inputs], [one.second for one in inputs])
    tokens = np.array([token for one in inputs for token in one.ids], np.int64)[None]
    none = np.zeros(0, np.int64)
    return Batch(tokens, documents, types, np.array(places, np.int64), np.array([0, len(inputs)], np.int64), none)


def _laid_out(lengths: Sequence[int], seconds: Sequence[int]) -> tuple[Ints, Ints]:
    """Where sequences that lie end to end begin and end (S + 1,), and which tokens are of a second text (1, N)."""
    parts = [np.arange(length) >= second for length, second in zip(lengths, seconds, strict=True)]
    return np.cumsum([0, *lengths]), np.concatenate(parts).astype(np.int64)[None]


def _shortened(lengths: list[int], room: int) -> list[int]:
    """Lengths that fit the room together: the longest gives way first, the last of equal ones."""
    if sum(lengths) <= room or len(lengths) == 1:
        return [min(length, room) for length in lengths]
    half = room // 2
    first, second = lengths
    if min(first, second) <= half:
        return [first, room - first] if first <= second else [room - second, second]
    return [room - half, half]


def _first(tokenizer: TextTokenizer, names: tuple[str, ...]) -> int:
    return next((token for name in names if (token := tokenizer.id_of(name)) is not None), tokenizer.eos_id)
