"""Small sets made by hand: what a record must be, one change to a set, and whether a set may be changed."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from stages.store.datasets import Dataset, Kind
from stages.store.errors import UserError
from stages.store.lineage import children_of_dataset
from stages.store.records import (
    KINDS,
    ChatRecord,
    LabelledRecord,
    Message,
    PreferenceRecord,
    PromptRecord,
    Record,
    TextRecord,
)
from stages.store.workspace import Workspace

EDITABLE = 10_000
"""Records up to which a set is changed by hand: each change writes it anew."""


class Edit(NamedTuple):
    """One change at a place of a split: None `before` inserts, None `after` deletes. Swapped, it is undone."""

    at: int
    before: Record | None
    after: Record | None

    def undone(self) -> Edit:
        """The change that takes this one back."""
        return Edit(self.at, self.after, self.before)

    def apply(self, records: list[Record]) -> None:
        """Make the change in `records`. UserError when another record than `before` stands there."""
        there = records[self.at] if 0 <= self.at < len(records) else None
        if not 0 <= self.at <= len(records) or (self.before is not None and there != self.before):
            raise UserError("The records have changed meanwhile.", "Look at them again, then repeat.")
        records[self.at : self.at + (self.before is not None)] = [] if self.after is None else [self.after]


def record_from(value: Any, kind: Kind) -> Record | None:
    """A record that came as plain values; None for None. UserError naming the field that does not fit."""
    if value is None:
        return None
    try:
        return msgspec.convert(value, KINDS[kind])
    except msgspec.ValidationError as error:
        raise UserError(f"This is no record of kind {kind}: {error}.", "Correct the field that is named.") from error


def check(record: Record) -> None:
    """Raise UserError unless the record can be learnt from: nothing empty, ranks and labels for all they belong to."""
    match record:
        case TextRecord():
            _needs(record.text.strip(), "The text is empty.", "Write something.")
        case ChatRecord():
            _check_turns(record.messages)
            said = any(message.role == "assistant" for message in record.messages)
            _needs(said, "No turn is the assistant's.", "Add the answer that is to be learnt.")
        case PreferenceRecord():
            _check_turns(record.messages)
            _needs(len(record.completions) > 1, "There is nothing to compare.", "Add a second completion.")
            _needs(all(text.strip() for text in record.completions), "A completion is empty.", "Write or remove it.")
            ranked = len(record.ranks) == len(record.completions) and all(rank >= 1 for rank in record.ranks)
            _needs(ranked, "Not every completion has a rank.", "Ranks count from 1, the best; ties are equal.")
            scored = record.scores is None or len(record.scores) == len(record.completions)
            _needs(scored, "Not every completion has a score.", "Give a score to each, or to none.")
        case PromptRecord():
            _check_turns(record.messages)
            last = record.messages[-1].role
            _needs(last != "assistant", "The last turn is the assistant's.", "A prompt ends before the answer.")
        case LabelledRecord():
            _check_labels(record)


def why_not_editable(workspace: Workspace, dataset: Dataset) -> UserError | None:
    """Why the records of a dataset stay as they are; None when they may be changed."""
    count = sum(dataset.info.records.values())
    if count > EDITABLE:
        return UserError(
            f"The dataset {dataset.name!r} has {count:,} records; up to {EDITABLE:,} are changed by hand.",
            "Change its sources, and build it again.",
        )
    needed = children_of_dataset(workspace, dataset.name)
    if needed:
        names = ", ".join(map(str, needed[:4])) + (f" and {len(needed) - 4} more" if len(needed) > 4 else "")
        return UserError(
            f"The dataset {dataset.name!r} was used by {names}, so its records stay as they are.",
            "Make a copy, and change that.",
        )
    return None


def _check_turns(messages: list[Message]) -> None:
    _needs(messages, "There is no turn.", "Add one.")
    for number, message in enumerate(messages, 1):
        _needs(message.content.strip(), f"Turn {number} ({message.role}) is empty.", "Write something, or remove it.")


def _check_labels(record: LabelledRecord) -> None:
    texts, task = record.texts, record.task
    least, most = {"classify": (1, 1), "pair": (2, 2), "choice": (3, 1_000), "tokens": (1, 1_000_000)}[task]
    hints = {
        "classify": "It takes one text and its label.",
        "pair": "It takes two texts and their label.",
        "choice": "It takes a question and at least two options.",
        "tokens": "It takes the words of a text, and a label for each.",
    }
    _needs(least <= len(texts) <= most, f"The task {task} does not go with {len(texts)} texts.", hints[task])
    _needs(all(text.strip() for text in texts), "A text is empty.", "Write something, or remove it.")
    if task == "tokens":
        count = len(record.labels or [])
        _needs(count == len(texts), f"There are {len(texts)} words and {count} labels.", "Give each word a label.")
        return
    label = record.label or ""
    _needs(label.strip(), "There is no label.", hints[task])
    if task == "choice":
        right = label.isdecimal() and int(label) < len(texts) - 1
        _needs(right, f"The label {label!r} names no option.", f"Options count from 0 to {len(texts) - 2}.")


def _needs(fact: object, title: str, hint: str) -> None:
    if not fact:
        raise UserError(title, hint)
