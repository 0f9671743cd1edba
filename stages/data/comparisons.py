"""Ranked completions as DPO learns from them: laid end to end with what each is to say, and the pairs among them.

P pairs, M completions, N tokens.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.data.preference_shards import Preferences
from stages.data.rankings import Pairs, pairs_of, text_of
from stages.models.loss import IGNORED

Which = Literal["all", "best_worst"]


class PackedCompletions(NamedTuple):
    """Completions with their prompts, end to end: tokens and targets (1, N).

    A target is the next token where that is the completion's own, and IGNORED elsewhere.
    """

    tokens: NDArray[np.int64]
    targets: NDArray[np.int64]
    documents: NDArray[np.int64]
    """Where each completion with its prompt begins, and the last one ends: (M + 1,)."""


class Comparison(NamedTuple):
    """Prompts with all their completions.

    numbers (M,) says which completions of the split they are, lengths (M,) how many tokens of each are its own.
    """

    packed: PackedCompletions
    numbers: NDArray[np.int64]
    lengths: NDArray[np.int64]
    pairs: Pairs
    prompts: int


def comparison(data: Preferences, prompts: NDArray[np.int64], which: Which) -> Comparison:
    """These prompts, their completions and the pairs to learn from."""
    numbers = np.concatenate([np.array(data.members(int(prompt)), np.int64) for prompt in prompts])
    packed = pack(data, numbers)
    lengths = np.add.reduceat((packed.targets[0] != IGNORED).astype(np.int64), packed.documents[:-1])
    return Comparison(packed, numbers, lengths, chosen_pairs(data, prompts, which), len(prompts))


def pack(data: Preferences, numbers: NDArray[np.int64]) -> PackedCompletions:
    """These completions of the split, end to end."""
    texts = [text_of(data, int(number)) for number in numbers]
    targets = [_targets(data, int(number), len(text)) for number, text in zip(numbers, texts, strict=True)]
    ends = np.cumsum([0, *(len(text) for text in texts)])
    return PackedCompletions(np.concatenate(texts)[None], np.concatenate(targets)[None], ends)


def chosen_pairs(data: Preferences, prompts: NDArray[np.int64], which: Which) -> Pairs:
    """The pairs of these prompts whose ranks differ, all or best against worst; a prompt's weights add to 1."""
    found, first = [], 0
    for prompt in prompts:
        members = data.members(int(prompt))
        span = slice(members.start, members.stop)
        pairs = pairs_of(data.ranks[span], data.scores[span], "skip", first)
        found.append(pairs if which == "all" else _widest(pairs))
        first += len(members)
    return Pairs(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _widest(pairs: Pairs) -> Pairs:
    kept = pairs.ranks_apart == pairs.ranks_apart.max(initial=0)
    return Pairs(*(column[kept] for column in pairs))._replace(
        weights=np.full(kept.sum(), 1 / max(1, kept.sum()), np.float32)
    )


def _targets(data: Preferences, number: int, length: int) -> NDArray[np.int64]:
    ids, own = data.completion(number)
    targets = np.full(length, IGNORED, np.int64)
    targets[:-1] = np.where(own[1:length], ids[1:length], IGNORED)
    return targets
