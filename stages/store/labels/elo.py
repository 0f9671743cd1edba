"""How strong checkpoints are by what people preferred: Bradley–Terry strengths on the scale of Elo.

The chance that i is preferred to j is p_i / (p_i + p_j) (R. A. Bradley and M. E. Terry, Rank Analysis of Incomplete
Block Designs, Biometrika 39, 1952), a tie counts as half a win for either, and Elo is 1000 + 400 log10 p (A. Elo, The
Rating of Chessplayers, 1978). All judgements are fitted together, so their order in time is no matter. The strengths
maximise the likelihood, found by the MM algorithm of D. R. Hunter (MM Algorithms for Generalized Bradley-Terry Models,
Annals of Statistics 32, 2004, equation 3), with PRIOR ties of every checkpoint with an imaginary one of Elo 1000:
without them one that won or lost everything would have no finite strength.

The intervals are of 95 %, from the inverse of the observed information. They take the pairs of one ranking as
independent, and so are somewhat too narrow where more than two completions were ranked at once.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import msgspec

from stages.store.labels.judged import Judgement
from stages.store.statistics import Share, Z, share

MIDDLE, SCALE = 1_000.0, 400 / math.log(10)
PRIOR = 1.0
"""Ties that every checkpoint begins with."""
CLOSE = 1e-10
"""Relative change of every strength below which the fit has ended."""
ROUNDS = 20_000


class Outcome(NamedTuple):
    """Of two checkpoints: 1 where the first was preferred, 0 where the second was, 0.5 for a tie."""

    first: str
    second: str
    score: float


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint among the others. `wins` is the share of its pairs that it won, ties as halves."""

    checkpoint: str
    elo: float
    low: float
    high: float
    won: int
    tied: int
    lost: int
    wins: Share


def outcomes(judged: Iterable[Judgement]) -> Iterator[Outcome]:
    """Every pair of completions by two known checkpoints that was ranked; "all bad" ranks them as a tie."""
    for one in judged:
        ranks = one.label.ranks
        if ranks is None or len(ranks) != len(one.completions):
            continue
        by = [completion.checkpoint for completion in one.completions]
        for i, j in combinations(range(len(by)), 2):
            if by[i] and by[j] and by[i] != by[j]:
                yield Outcome(by[i], by[j], 0.5 if ranks[i] == ranks[j] else float(ranks[i] < ranks[j]))


def between(found: Iterable[Outcome], one: str, other: str) -> Share:
    """How often `one` was preferred to `other`, ties as halves, with the Wilson interval."""
    scores = [score if first == one else 1 - score for first, second, score in found if {first, second} == {one, other}]
    return share(math.fsum(scores), len(scores))


def standings(found: Iterable[Outcome]) -> list[Standing]:
    """Every checkpoint of the outcomes, the strongest first."""
    won, tied, lost = defaultdict[str, int](int), defaultdict[str, int](int), defaultdict[str, int](int)
    points, games = defaultdict[str, float](float), defaultdict[tuple[str, str], int](int)
    for first, second, score in found:
        for one, its in ((first, score), (second, 1 - score)):
            points[one] += its
            (won if its == 1 else lost if its == 0 else tied)[one] += 1
        games[first, second] += 1
        games[second, first] += 1
    names = sorted(points)
    strengths = _fit(names, points, games)
    errors = _errors(names, strengths, games)
    found_standings = [
        Standing(
            checkpoint=name,
            elo=MIDDLE + SCALE * strengths[name],
            low=MIDDLE + SCALE * (strengths[name] - Z * errors[name]),
            high=MIDDLE + SCALE * (strengths[name] + Z * errors[name]),
            won=won[name],
            tied=tied[name],
            lost=lost[name],
            wins=share(points[name], won[name] + tied[name] + lost[name]),
        )
        for name in names
    ]
    return sorted(found_standings, key=lambda one: -one.elo)


def _fit(names: Sequence[str], points: Mapping[str, float], games: Mapping[tuple[str, str], int]) -> dict[str, float]:
    """The natural logarithms of the strengths."""
    rivals = {name: [(other, games[name, other]) for other in names if (name, other) in games] for name in names}
    p = dict.fromkeys(names, 1.0)
    for _ in range(ROUNDS):
        change = 0.0
        for name in names:
            expected = PRIOR / (p[name] + 1) + math.fsum(count / (p[name] + p[other]) for other, count in rivals[name])
            new = (points[name] + PRIOR / 2) / expected
            change, p[name] = max(change, abs(new - p[name]) / new), new
        if change < CLOSE:
            break
    return {name: math.log(strength) for name, strength in p.items()}


def _errors(
    names: Sequence[str], strengths: Mapping[str, float], games: Mapping[tuple[str, str], int]
) -> dict[str, float]:
    """Standard errors of the logarithms: roots of the diagonal of the inverse information."""

    def spread(difference: float) -> float:
        chance = 1 / (1 + math.exp(-difference))
        return chance * (1 - chance)

    matrix = [[-games.get((a, b), 0) * spread(strengths[a] - strengths[b]) for b in names] for a in names]
    for i, row in enumerate(matrix):
        row[i] = PRIOR * spread(strengths[names[i]]) - math.fsum(row[:i] + row[i + 1 :])
    return {name: math.sqrt(value) for name, value in zip(names, _inverse_diagonal(matrix), strict=True)}


def _inverse_diagonal(matrix: Sequence[Sequence[float]]) -> list[float]:
    """The diagonal of the inverse of a positive definite matrix L·Lᵀ: the squares of L⁻¹, summed over columns."""
    size = len(matrix)
    lower = [[0.0] * size for _ in range(size)]
    inverse = [[0.0] * size for _ in range(size)]
    for i in range(size):
        for j in range(i + 1):
            rest = matrix[i][j] - math.fsum(lower[i][k] * lower[j][k] for k in range(j))
            lower[i][j] = math.sqrt(rest) if i == j else rest / lower[j][j]
        for j in range(i + 1):
            rest = float(i == j) - math.fsum(lower[i][k] * inverse[k][j] for k in range(j, i))
            inverse[i][j] = rest / lower[i][i]
    return [math.fsum(inverse[i][j] ** 2 for i in range(j, size)) for j in range(size)]
