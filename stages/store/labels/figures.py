"""How good labels are: speed, biases of place and length, agreement with oneself and with others, and conflicts.

A disagreement is settled by one more judgement, which names the labels in whose place it speaks (`Label.settles`).
Agreement is told from what people said before that: who settles has seen that there was something to settle.
"""

from __future__ import annotations

import datetime
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import combinations, pairwise
from typing import TypeVar

import msgspec

from stages.store.labels.judged import Judgement
from stages.store.labels.records import Label
from stages.store.labels.store import Labels
from stages.store.statistics import Share, compare, kendall_tau, mean_interval, share

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

PAUSE = 300.0
"""Seconds between two labels after which a person was away, for the rate."""

CONFLICT_TAU = 0.0
"""Two people are in conflict about a prompt when the τ of their rankings is below this, or their best differ."""


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """Of two people, or of one with themselves, over the prompts that both judged."""

    who: str
    prompts: int
    pairs: Share
    """Pairs ordered alike, of those that both order."""
    tau: tuple[float, float, float] | None
    """The mean of Kendall's τ-b over prompts, and its 95 % interval within the scale from -1 to 1."""


class Conflict(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt about which two people, or one at two times, do not agree."""

    set_name: str
    place: int
    labels: tuple[int, int]
    annotators: tuple[str, str]
    tau: float | None


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """All of it, over some labels."""

    labels: int
    by_kind: dict[str, int]
    by_annotator: dict[str, int]
    median_seconds: float | None
    per_hour: float | None
    """Labels an hour of work, pauses left out."""
    by_day: dict[str, int]
    """Labels given here, by day (UTC), the days in order."""
    best_by_place: list[Share]
    """How often what was shown first, second … was ranked alone at the top; without bias all are alike."""
    longer_wins: Share
    """Untied pairs in which the longer text was preferred."""
    self_agreement: list[Agreement]
    between: list[Agreement]
    conflicts: list[Conflict]
    """Between people, not settled."""
    self_conflicts: list[Conflict]
    """Of people with themselves, on prompts asked again, not settled."""
    settled: int
    """Judgements that settled a disagreement."""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a label set is."""

    set_name: str
    prompts: int
    judged: int
    """Prompts that as many people have judged here as the set asks for."""
    by_annotator: dict[str, int]
    """Prompts that each person has judged, here or in what was taken in."""


def progress(labels: Labels, name: str | None = None) -> list[Progress]:
    """How far one label set is, or every one."""
    chosen = labels.sets() if name is None else [labels.find_set(name)]
    return [
        Progress(
            set_name=one.name, prompts=one.prompts, judged=labels.count(one.id), by_annotator=labels.counts(one.id)
        )
        for one in chosen
    ]


def figures(judged: Iterable[Judgement]) -> Figures:
    """The figures of labels, which include repeats (`Choice.repeats`) and overruled ones (`Choice.overruled`)."""
    every = list(judged)
    ranked = [one for one in every if one.label.ranks is not None]
    kinds, people = defaultdict[str, int](int), defaultdict[str, int](int)
    for one in every:
        kinds[one.label.kind] += 1
        people[one.label.annotator] += 1
    seconds = [one.label.seconds for one in every if one.label.seconds > 0]
    settling = [one for one in ranked if one.label.settles]
    overruled = {id_ for one in settling for id_ in one.label.settles or ()}
    first = [one for one in ranked if one.label.repeats is None]
    alone = [one for one in ranked if not one.label.settles]
    standing = [one for one in ranked if one.label.id not in overruled]
    return Figures(
        labels=len(every),
        by_kind=dict(kinds),
        by_annotator=dict(people),
        median_seconds=statistics.median(seconds) if seconds else None,
        per_hour=_per_hour([one.label for one in every if not one.label.origin]),
        by_day=_by_day(one.label for one in every if not one.label.origin),
        best_by_place=_best_by_place([one for one in first if not one.label.origin and not _has_own(one)]),
        longer_wins=_longer_wins(first),
        self_agreement=_agreements(_asked_again(alone)),
        between=_agreements(_shared(alone)),
        conflicts=list(_conflicts(_shared(standing))),
        self_conflicts=list(_conflicts(_asked_again(standing))),
        settled=len(settling),
    )


def _by_day(labels: Iterable[Label]) -> dict[str, int]:
    days = Counter(datetime.datetime.fromtimestamp(one.created, datetime.UTC).date() for one in labels)
    return {day.isoformat(): days[day] for day in sorted(days)}


def _has_own(one: Judgement) -> bool:
    """Whether the person wrote one of the candidates: that one is best, and was not shown at its place."""
    return any(completion.author == one.label.annotator for completion in one.completions)


def _per_hour(labels: Sequence[Label]) -> float | None:
    worked, counted = 0.0, 0
    for _, own in _grouped(labels, lambda label: label.annotator):
        times = sorted(label.created for label in own)
        gaps = [after - before for before, after in pairwise(times)]
        kept = [gap for gap in gaps if gap <= PAUSE]
        worked, counted = worked + sum(kept), counted + len(kept)
    return 3_600 * counted / worked if worked > 0 else None


def _best_by_place(ranked: Sequence[Judgement]) -> list[Share]:
    """Over rankings of the commonest number of completions."""
    sizes = [len(one.completions) for one in ranked]
    if not sizes:
        return []
    size = statistics.mode(sizes)
    clear = [one.label.ranks for one in ranked if len(one.completions) == size and _ranks(one).count(1) == 1]
    return [share(sum(1 for ranks in clear if ranks and ranks[place] == 1), len(clear)) for place in range(size)]


def _longer_wins(ranked: Sequence[Judgement]) -> Share:
    wins = count = 0
    for one in ranked:
        ranks, lengths = _ranks(one), [len(completion.text) for completion in one.completions]
        for i, j in combinations(range(len(ranks)), 2):
            if ranks[i] != ranks[j] and lengths[i] != lengths[j]:
                count += 1
                wins += (ranks[i] < ranks[j]) == (lengths[i] > lengths[j])
    return share(wins, count)


def _asked_again(ranked: Sequence[Judgement]) -> Iterator[tuple[Judgement, Judgement]]:
    """Judgements with those of the same person on the same prompt, asked again."""
    by_id = {one.label.id: one for one in ranked}
    for one in ranked:
        if one.label.repeats in by_id:
            yield by_id[one.label.repeats], one


def _shared(ranked: Sequence[Judgement]) -> Iterator[tuple[Judgement, Judgement]]:
    """The latest judgements of every two people of one prompt in one set, those of prompts asked again left out."""
    first = [one for one in ranked if one.label.repeats is None]
    for _, about in _grouped(first, lambda one: (one.label.set_id, one.label.place)):
        latest = {one.label.annotator: one for one in about}
        yield from combinations(latest.values(), 2)


def _agreements(pairs: Iterable[tuple[Judgement, Judgement]]) -> list[Agreement]:
    """How far people agree, by who they are."""
    people = _grouped(list(pairs), lambda pair: " and ".join(sorted({one.label.annotator for one in pair})))
    return [_agreement(who, [_aligned(one, other) for one, other in own]) for who, own in people]


def _conflicts(pairs: Iterable[tuple[Judgement, Judgement]]) -> Iterator[Conflict]:
    for one, other in pairs:
        a, b = _aligned(one, other)
        tau = kendall_tau(a, b)
        best_a, best_b = ({i for i, rank in enumerate(ranks) if rank == min(ranks)} for ranks in (a, b))
        if a and ((tau is not None and tau < CONFLICT_TAU) or not best_a & best_b):
            yield Conflict(
                set_name=one.set_name,
                place=one.label.place,
                labels=(one.label.id, other.label.id),
                annotators=(one.label.annotator, other.label.annotator),
                tau=tau,
            )


def _agreement(who: str, aligned: Sequence[tuple[list[int], list[int]]]) -> Agreement:
    pairs = [compare(a, b) for a, b in aligned]
    agree, differ = sum(p.agree for p in pairs), sum(p.differ for p in pairs)
    taus = [tau for a, b in aligned if (tau := kendall_tau(a, b)) is not None]
    found = mean_interval(taus)
    bounded = None if found is None else (found[0], max(-1.0, found[1]), min(1.0, found[2]))
    return Agreement(who=who, prompts=len(aligned), pairs=share(agree, agree + differ), tau=bounded)


def _aligned(one: Judgement, other: Judgement) -> tuple[list[int], list[int]]:
    """The ranks of the completions that both judged, in one order."""
    theirs = dict(zip(other.label.shown, _ranks(other), strict=True))
    both = [(rank, theirs[id_]) for id_, rank in zip(one.label.shown, _ranks(one), strict=True) if id_ in theirs]
    return [a for a, _ in both], [b for _, b in both]


def _ranks(one: Judgement) -> list[int]:
    assert one.label.ranks is not None
    return one.label.ranks


def _grouped(values: Iterable[V], key: Callable[[V], K]) -> list[tuple[K, list[V]]]:
    groups = defaultdict[K, list[V]](list)
    for value in values:
        groups[key(value)].append(value)
    return list(groups.items())
