"""scores.jsonl in the directory of a run that had a reward model judge a label set, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import msgspec

from stages.store.rundir import RunDir

FILE = "scores.jsonl"


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt: its place in the set, ids of completions, and their raw scores in the same order."""

    place: int
    shown: list[int]
    scores: list[float]
    checkpoint: str

    @property
    def ranks(self) -> list[int]:
        """1 is the highest score; equal scores tie."""
        order = sorted(set(self.scores), reverse=True)
        return [order.index(score) + 1 for score in self.scores]


def read_scores(run: RunDir) -> list[Line]:
    """The latest whole line of each place, in the order of places; a line that is torn or damaged is passed over."""
    try:
        data = (run.path / FILE).read_bytes()
    except FileNotFoundError:
        return []
    found: dict[int, Line] = {}
    for text in data.split(b"\n"):
        try:
            line = msgspec.json.decode(text, type=Line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        found[line.place] = line
    return [found[place] for place in sorted(found)]


def uncertainty(scores: Sequence[float]) -> float:
    """How unsure the model is of the order: the mean over pairs of its entropy in nats, from 0 to log 2.

    By the model a is preferred to b with probability p = σ(s_a − s_b); the entropy is −p log p − (1 − p) log (1 − p).
    """
    pairs = list(combinations(scores, 2))
    return sum(_entropy(a - b) for a, b in pairs) / len(pairs)


def disagreement(scores: Sequence[float], ranks: Sequence[int]) -> float:
    """How far the model contradicts a ranking: the mean over untied pairs of −log σ(s_better − s_worse), in nats.

    0 where a ranking ties everything.
    """
    pairs = [(i, j) for i, j in combinations(range(len(scores)), 2) if ranks[i] != ranks[j]]
    signs = [scores[i] - scores[j] if ranks[i] < ranks[j] else scores[j] - scores[i] for i, j in pairs]
    return sum(_softplus(-apart) for apart in signs) / len(signs) if signs else 0.0


def _entropy(apart: float) -> float:
    p = 1 / (1 + math.exp(-abs(apart)))
    return p * _softplus(-abs(apart)) + (1 - p) * _softplus(abs(apart))


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))
