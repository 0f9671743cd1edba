"""Ranked completions as a reward model learns from them: all completions of a prompt together, and their pairs.

Each epoch sees every prompt once, in an order that follows from (seed, epoch), so the position in training is one
integer, as for `stages.data.packing.Rows`.

P pairs, M completions, N tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.data.order import order_at
from stages.data.preference_shards import Preferences

Ties = Literal["half", "skip"]


class Pairs(NamedTuple):
    """Pairs of completions of the same prompt. All are (P,)."""

    better: NDArray[np.int64]
    """Places of completions in the batch."""
    worse: NDArray[np.int64]
    tied: NDArray[np.bool_]
    weights: NDArray[np.float32]
    """1 / the number of pairs of its prompt."""
    ranks_apart: NDArray[np.float32]
    scores_apart: NDArray[np.float32]
    """How far annotators put the better one above the other; 0 where they gave no scores."""


class Batch(NamedTuple):
    """Completions with their prompts, laid end to end: tokens (1, N), documents (M + 1,) says where each begins."""

    tokens: NDArray[np.int64]
    documents: NDArray[np.int64]
    pairs: Pairs
    prompts: int


class Rankings:
    """The prompts of one split that have a pair to learn from."""

    def __init__(self, data: Preferences, seed: int, ties: Ties) -> None:
        self._data, self._seed, self._ties = data, seed, ties
        self.prompts = np.array([g for g in range(len(data)) if ties == "half" or not _all_tied(data, g)], np.int64)

    def __len__(self) -> int:
        return len(self.prompts)

    def order(self, position: int, count: int) -> NDArray[np.int64]:
        """Which prompts stand at these places of the endless training order: (count,)."""
        return self.prompts[order_at(position, count, len(self), self._seed)]

    def costliest(self, count: int) -> NDArray[np.int64]:
        """The `count` prompts whose batch needs most memory: those with most tokens, again where there are fewer."""
        starts, groups = self._data.starts, self._data.groups
        sizes = starts[groups[self.prompts + 1]] - starts[groups[self.prompts]]
        return self.prompts[np.resize(np.argsort(-sizes, kind="stable"), count)]

    def batch(self, prompts: Sequence[int] | NDArray[np.int64]) -> Batch:
        """All completions of these prompts, each up to the last token that is the completion's own."""
        texts = [text_of(self._data, number) for prompt in prompts for number in self._data.members(int(prompt))]
        ends = np.cumsum([0, *(len(text) for text in texts)])
        return Batch(np.concatenate(texts)[None], ends, self.pairs(prompts), len(prompts))

    def pairs(self, prompts: Sequence[int] | NDArray[np.int64]) -> Pairs:
        """The pairs of these prompts, whose completions lie one prompt's after another's."""
        return pairs_among(self._data, prompts, self._ties)


def text_of(data: Preferences, number: int) -> NDArray[np.int64]:
    """Tokens of a completion with its prompt. A template may write a line break behind its end: that is left out."""
    ids, own = data.completion(number)
    return ids[: int(np.flatnonzero(own)[-1]) + 1]


def pairs_among(data: Preferences, prompts: Sequence[int] | NDArray[np.int64], ties: Ties) -> Pairs:
    """The pairs of these prompts, as places among their completions, which lie one prompt's after another's."""
    found, first = [], 0
    for prompt in prompts:
        members = data.members(int(prompt))
        span = slice(members.start, members.stop)
        found.append(pairs_of(data.ranks[span], data.scores[span], ties, first))
        first += len(members)
    return Pairs(*(np.concatenate(column) for column in zip(*found, strict=True)))


def pairs_of(ranks: NDArray[np.int16], scores: NDArray[np.float32], ties: Ties = "half", first: int = 0) -> Pairs:
    """The pairs of one prompt's completions, which stand at places `first` and on; `skip` leaves the tied out."""
    kept = [(i, j) for i, j in combinations(range(len(ranks)), 2) if ties == "half" or ranks[i] != ranks[j]]
    better = np.array([i if ranks[i] <= ranks[j] else j for i, j in kept], np.int64)
    worse = np.array([j if ranks[i] <= ranks[j] else i for i, j in kept], np.int64)
    return Pairs(
        better + first,
        worse + first,
        ranks[better] == ranks[worse],
        np.full(len(kept), 1 / max(1, len(kept)), np.float32),
        (ranks[worse] - ranks[better]).astype(np.float32),
        np.nan_to_num(scores[better] - scores[worse]).astype(np.float32),
    )


def _all_tied(data: Preferences, prompt: int) -> bool:
    members = data.members(prompt)
    ranks = data.ranks[members.start : members.stop]
    return bool((ranks == ranks[0]).all())
