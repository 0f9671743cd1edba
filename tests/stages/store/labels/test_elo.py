"""Strengths from preferences: the maximum of the likelihood, honest intervals, and every ranked pair counted once."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest

from stages.store.labels import Candidate, Prompt, open_labels
from stages.store.labels.elo import MIDDLE, PRIOR, SCALE, Outcome, between, outcomes, standings
from stages.store.labels.judged import judged
from stages.store.records import Message
from stages.store.statistics import Z, share
from stages.store.workspace import Workspace


def drawn(strengths: dict[str, float], count: int) -> list[Outcome]:
    """Outcomes as the model says they come, some of them ties."""
    chance, names, found = random.Random(7), sorted(strengths), []
    for _ in range(count):
        a, b = chance.sample(names, 2)
        wins = chance.random() < 1 / (1 + math.exp(strengths[b] - strengths[a]))
        found.append(Outcome(a, b, 0.5 if chance.random() < 0.1 else float(wins)))
    return found


def test_the_strengths_are_at_the_maximum_of_the_likelihood_and_the_intervals_from_its_curvature() -> None:
    found = drawn({"a@1": 0.0, "b@1": 0.5, "c@1": 1.0, "d@1": -1.0}, 500)
    table = {one.checkpoint: one for one in standings(found)}
    names = sorted(table)
    theta = np.array([(table[name].elo - MIDDLE) / SCALE for name in names])
    at = {name: place for place, name in enumerate(names)}
    chance = 1 / (1 + np.exp(-theta))
    gradient = PRIOR * (0.5 - chance)
    information = np.diag(PRIOR * chance * (1 - chance))
    for one, other, score in found:
        i, j = at[one], at[other]
        p = 1 / (1 + np.exp(theta[j] - theta[i]))
        step = np.eye(4)[i] - np.eye(4)[j]
        gradient += (score - p) * step
        information += p * (1 - p) * np.outer(step, step)
    assert np.abs(gradient).max() < 1e-5
    reach = Z * SCALE * np.sqrt(np.diag(np.linalg.inv(information)))
    for name in names:
        assert table[name].high - table[name].elo == pytest.approx(reach[at[name]], rel=1e-6)
        assert table[name].elo - table[name].low == pytest.approx(reach[at[name]], rel=1e-6)


def test_who_won_or_lost_everything_has_a_finite_place_and_a_wide_interval() -> None:
    best, worst = standings([Outcome("good@1", "bad@1", 1.0)] * 3)
    assert (best.checkpoint, best.won, best.lost, worst.won, worst.lost) == ("good@1", 3, 0, 0, 3)
    assert math.isfinite(best.elo) and best.elo + worst.elo == pytest.approx(2 * MIDDLE)
    assert best.low < MIDDLE < best.high
    assert standings([]) == []


def test_a_win_rate_counts_ties_as_halves_whoever_stood_first() -> None:
    found = [
        Outcome("a@1", "b@1", 1.0),
        Outcome("b@1", "a@1", 0.0),
        Outcome("b@1", "a@1", 0.5),
        Outcome("a@1", "c@1", 0),
    ]
    assert between(found, "a@1", "b@1") == share(2.5, 3)
    assert between(found, "b@1", "a@1") == share(0.5, 3)


def test_every_pair_of_different_checkpoints_is_an_outcome_and_taken_back_ones_are_not(tmp_path: Path) -> None:
    candidates = [
        Candidate(run="r", k=k, text=text, checkpoint=by)
        for k, (text, by) in enumerate([("w", "a@1"), ("x", "a@1"), ("y", "b@1"), ("z", "")])
    ]
    prompt = Prompt(messages=[Message("user", "?")], part="eval")
    with open_labels(Workspace(tmp_path).labels) as labels:
        made = labels.add_set("s", "rank", [(prompt, candidates)])
        shown = labels.at(made.id, 0)
        assert shown is not None
        rank = {"w": 1, "x": 3, "y": 2, "z": 4}
        label = labels.save(shown.label("rank", "ada", ranks=[rank[one.text] for one in shown.completions]))
        found = list(outcomes(judged(labels)))
        assert between(found, "a@1", "b@1") == share(1, 2) and len(found) == 2
        labels.undo(label)
        assert list(outcomes(judged(labels))) == []
