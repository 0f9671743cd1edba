"""The order that a reward model gives candidates: to be shown only once the person has given their own.

saved 12 of 50 judged by you · saved 10:41:07 · 2 > 1 = 3 > 4 · 1 base@2000, 2 sft@400, …
judge@8 ordered them 2 > 3 > 1 > 4 · against you in 1 of 5 pairs: 3 > 1
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import permutations
from typing import NamedTuple

from stages.store.errors import UserError
from stages.store.labels import Label
from stages.store.rundir import RunDir, list_runs
from stages.store.scores import FILE, Line, read_scores
from stages.store.workspace import Workspace
from workbench.judging.order import Order

NAMED = 3
"""Pairs that are told one by one, at most; what is more is counted."""


class ModelOrder(NamedTuple):
    """How a reward model orders what a person has judged."""

    checkpoint: str
    scores: Mapping[int, float]
    """By a completion's number on the screen, from 0."""


class ModelOrders:
    """The orders that finished and unfinished scoring runs hold for one label set. To be used from one thread."""

    def __init__(self, workspace: Workspace, set_name: str) -> None:
        self._workspace, self._set_name = workspace, set_name
        self._ours: dict[str, bool] = {}
        """By a run's folder, whether it has judged this set."""
        self._read: dict[str, tuple[tuple[int, int], dict[int, Line]]] = {}
        """By a run's folder, its scores by place, and the time and size of the file that they were read from."""

    def of(self, label: Label) -> ModelOrder | None:
        """The order by the newest run that has scored two or more of what was shown; None without one."""
        for lines in self._scored():
            found = lines.get(label.place)
            if found is None or len(found.shown) != len(found.scores):
                continue
            by_id = dict(zip(found.shown, found.scores, strict=True))
            scores = {number: by_id[id_] for number, id_ in enumerate(label.shown) if id_ in by_id}
            if len(scores) > 1:
                return ModelOrder(found.checkpoint, scores)
        return None

    def told(self, label: Label) -> str:
        """The order in words, and where it contradicts the person; nothing before the person has given an order."""
        order = self.of(label) if label.ranks is not None else None
        return in_words(order, label.ranks or []) if order is not None else ""

    def _scored(self) -> Iterator[dict[int, Line]]:
        for run in list_runs(self._workspace):
            if self._is_ours(run):
                yield self._lines(run)

    def _is_ours(self, run: RunDir) -> bool:
        known = self._ours.get(run.path.name)
        if known is None:
            try:
                spec = run.spec()
            except UserError:  # the list of runs tells of damage; such a run has nothing to say here
                return False
            known = spec.stage == "label" and spec.settings.get("label_set") == self._set_name
            self._ours[run.path.name] = known
        return known

    def _lines(self, run: RunDir) -> dict[int, Line]:
        try:
            facts = (run.path / FILE).stat()
        except FileNotFoundError:
            return {}
        stamp = (facts.st_mtime_ns, facts.st_size)
        known = self._read.get(run.path.name)
        if known is None or known[0] != stamp:
            known = self._read[run.path.name] = stamp, {one.place: one for one in read_scores(run)}
        return known[1]


def in_words(order: ModelOrder, ranks: list[int]) -> str:
    """A model's order, and the pairs of which it prefers the one that the person, who gave these ranks, does not."""
    groups = Order(len(ranks))
    for score in sorted(set(order.scores.values()), reverse=True):
        groups.groups.append([number for number, given in order.scores.items() if given == score])
    pairs = [(a, b) for a, b in permutations(order.scores, 2) if ranks[a] < ranks[b]]
    against = [(b, a) for a, b in pairs if order.scores[b] > order.scores[a]]
    said = f"{order.checkpoint} ordered them {groups}"
    return " · ".join(filter(None, [said, _compared(len(pairs), against)]))


def _compared(pairs: int, against: list[tuple[int, int]]) -> str:
    """In how many of the pairs that the person orders the model is against them, and in which."""
    if not pairs:
        return ""
    if not against:
        return f"nowhere against you in {pairs} {'pair' if pairs == 1 else 'pairs'}"
    named = ", ".join(f"{better + 1} > {worse + 1}" for better, worse in against[:NAMED])
    more = f" and {len(against) - NAMED} more" if len(against) > NAMED else ""
    return f"against you in {len(against)} of {pairs} {'pair' if pairs == 1 else 'pairs'}: {named}{more}"
