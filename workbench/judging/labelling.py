"""A person at work on a label set: what is before them, what they saved, and taking it back."""

from __future__ import annotations

import datetime
import getpass
import os
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from stages.store.labels import Label, Labels, LabelSet, Shown, open_labels
from stages.store.labels.backup import back_up
from stages.store.labels.records import Kind
from stages.store.names import check_name
from stages.store.workspace import Workspace
from workbench.judging.model_orders import ModelOrders
from workbench.judging.taking_in import left_out_of

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
        """What the person has said of this prompt and stands: the next label of it takes its place."""
        self.settles = False
        """Whether what is said next settles a disagreement about this prompt."""
        self.model_orders = ModelOrders(workspace, name)
        self.left_out = left_out_of(workspace, self.set)
        """How many prompts were answered alike and are not in the set, in words; empty for none."""
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
        self.settles = False
        return self._show(self.labels.next(self.set.id, self.annotator, after=after), None)

    def go(self, place: int) -> Shown | None:
        """Put the prompt at a place (from 0) before the person, with what they said of it; None beyond the set.

        Where they wrote a better answer, the next ranking takes the place of that with their answer at the top.
        """
        shown = self.labels.at(self.set.id, place)
        if shown is None:
            return None
        label = self.labels.label_of(self.set.id, place, self.annotator)
        if label is None:
            self.settles = False
            return self._show(shown, None)
        said = self.labels.ranked_with(label) or label
        self.settles = bool(said.settles)
        return self._show(self.labels.shown_as(label), said)

    def settle(self, place: int) -> Shown | None:
        """Put a prompt on which judgements disagree before the person afresh, in a new order; None beyond the set.

        What they say of it then stands in the place of all rankings of it, which stay as they are.
        """
        shown = self.labels.at(self.set.id, place)
        if shown is None:
            return None
        self._show(shown, None)
        self.settles = True
        return shown

    def save(self, kind: Kind, **fields: Any) -> Label:
        """Store what the person said of the prompt before them, in the place of what they had said."""
        assert self.shown is not None
        if kind != "flag":
            fields |= self._place_in_history(kind)
        label = self.shown.label(kind, self.annotator, seconds=self._seconds(), **fields)
        label = self.labels.save(label)
        if kind != "flag":
            self.earlier = label
        self._saved()
        return label

    def write(self, text: str, *, best: bool, ranks: Sequence[int] | None = None, note: str = "") -> list[Label]:
        """Store an answer of the person's own; with `best` above what is shown, which has `ranks` among itself."""
        assert self.shown is not None
        history = self._place_in_history("rank" if best and self.shown.completions else "write")
        given = {"others": ranks, "note": note, "seconds": self._seconds(), **history}
        labels = self.labels.write(self.shown, self.annotator, text, best=best, **given)
        self.earlier = labels[0]
        self._saved()
        return labels

    def undo(self) -> Label | None:
        """Take the person's latest label of this set back and put its prompt before them as it was; None with none.

        The label comes back with the ranks that the completions on the screen had.
        """
        label = self.labels.last(self.set.id, self.annotator)
        if label is None:
            return None
        ranking = next(iter(self.labels.undo(label)), None)
        self._show(self.labels.shown_as(label), self.labels.label_of(self.set.id, label.place, self.annotator))
        self.settles = bool((ranking or label).settles)
        self._count()
        if ranking is None or ranking.ranks is None:
            return label
        others = [rank - 1 for rank in ranking.ranks[1:]]
        return msgspec.structs.replace(label, ranks=others if len(set(others)) > 1 else None, note=ranking.note)

    def who_wrote(self, label: Label) -> Sequence[str]:
        """The checkpoints (or people) behind what was shown, in the order of the screen."""
        return [one.checkpoint or one.author for one in self.labels.completions(label.shown)]

    def _place_in_history(self, kind: Kind) -> dict[str, Any]:
        """What a label of this prompt replaces, and which labels it settles."""
        assert self.shown is not None
        earlier = self.earlier
        if kind not in ("rank", "pair", "rate") or not self.settles:
            settles = None
        elif earlier is not None and earlier.settles:
            settles = earlier.settles
        else:
            settles = self.labels.rankings_at(self.set.id, self.shown.place) or None
        return {"supersedes": earlier.id if earlier is not None else None, "settles": settles}

    def _show(self, shown: Shown | None, earlier: Label | None) -> Shown | None:
        self.shown, self.earlier, self._began = shown, earlier, time.monotonic()
        return shown

    def _saved(self) -> None:
        self.saved_at = datetime.datetime.now()
        self._count()

    def _count(self) -> None:
        self.done = self.labels.count(self.set.id, self.annotator)

    def _seconds(self) -> float:
        taken = time.monotonic() - self._began
        return round(taken, 2) if taken <= AWAY else 0.0
