"""A person at work on a label set: what is before them, what they saved, and taking it back."""

from __future__ import annotations

import datetime
import getpass
import os
import time
from collections.abc import Sequence
from typing import Any

from stages.store.labels import Label, Labels, LabelSet, Shown, open_labels
from stages.store.labels.backup import back_up
from stages.store.labels.records import Kind
from stages.store.names import check_name
from stages.store.workspace import Workspace

AWAY = 600.0
"""Seconds before a prompt after which a person was away, so that the time taken says nothing."""


def annotator_name(setting: str | None) -> str:
    """Who labels: as the settings say, else the name of the login."""
    name = setting or os.environ.get("USER") or _login()
    return check_name(name, "name of an annotator")


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"


class Session:
    """One set and one person. To be used from one thread at a time; every saving method returns when all is on disk."""

    def __init__(self, workspace: Workspace, name: str, annotator: str) -> None:
        self.annotator = annotator
        self._path = workspace.labels
        self.labels: Labels = open_labels(workspace.labels)
        self.set: LabelSet = self.labels.find_set(name)
        self.shown: Shown | None = None
        self.earlier: Label | None = None
        """The label that was undone to get here, or that the person has given here before."""
        self.done = self.labels.count(self.set.id, annotator)
        self.saved_at: datetime.datetime | None = None
        self._began = time.monotonic()

    def close(self) -> None:
        """Give the prompt back, and leave a verified backup."""
        self.labels.close()
        back_up(self._path)

    def next(self) -> Shown | None:
        """Put the next prompt before the person."""
        after = self.shown.place if self.shown is not None else -1
        return self._show(self.labels.next(self.set.id, self.annotator, after=after), None)

    def go(self, place: int) -> Shown | None:
        """Put the prompt at a place (from 0) before the person, with what they said of it; None beyond the set."""
        shown = self.labels.at(self.set.id, place)
        if shown is None:
            return None
        label = self.labels.label_of(self.set.id, place, self.annotator)
        return self._show(self.labels.shown_as(label) if label is not None else shown, label)

    def save(self, kind: Kind, **fields: Any) -> Label:
        """Store what the person said of the prompt before them, in the place of what they had said."""
        assert self.shown is not None
        replaced = self.earlier.id if self.earlier is not None and kind not in ("flag", "undo") else None
        label = self.shown.label(kind, self.annotator, seconds=self._seconds(), supersedes=replaced, **fields)
        return self._saved(self.labels.save(label))

    def write(self, text: str, *, best: bool) -> list[Label]:
        """Store an answer of the person's own."""
        assert self.shown is not None
        labels = self.labels.write(self.shown, self.annotator, text, best=best, seconds=self._seconds())
        return [self._saved(label) for label in labels]

    def undo(self) -> Label | None:
        """Take the person's latest label of this set back and put its prompt before them as it was; None with none."""
        label = self.labels.last(self.set.id, self.annotator)
        if label is None:
            return None
        self.labels.undo(label)
        self._show(self.labels.shown_as(label), None)
        self._count()
        return label

    def who_wrote(self, label: Label) -> Sequence[str]:
        """The checkpoints (or people) behind what was shown, in the order of the screen."""
        return [one.checkpoint or one.author for one in self.labels.completions(label.shown)]

    def _show(self, shown: Shown | None, earlier: Label | None) -> Shown | None:
        self.shown, self.earlier, self._began = shown, earlier, time.monotonic()
        return shown

    def _saved(self, label: Label) -> Label:
        self.saved_at = datetime.datetime.now()
        self._count()
        return label

    def _count(self) -> None:
        self.done = self.labels.count(self.set.id, self.annotator)

    def _seconds(self) -> float:
        taken = time.monotonic() - self._began
        return round(taken, 2) if taken <= AWAY else 0.0
