"""How well scores order what people have ranked: accuracy and calibration over the pairs that are not tied.

By the model of Bradley and Terry (1952), a is preferred to b with probability σ(s_a − s_b). Confidence is that
probability for the one the model prefers; the expected calibration error is Σ_bins n_b / n |accuracy_b − confidence_b|
over ten equal bins of confidence from 1/2 to 1 (Guo et al., On Calibration of Modern Neural Networks, arXiv 1706.04599,
eq. 3). Intervals take pairs as independent, which those of one prompt are not quite.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from stages.data.preference_shards import Preferences
from stages.data.rankings import Pairs, pairs_among, text_of
from stages.measuring.scorer import padded
from stages.models.value import ValueModel
from stages.store.rewards import Bin
from stages.store.statistics import Share, share

BINS = 10
TOKENS_AT_ONCE = 16_384


class ScoredCompletions(NamedTuple):
    """Completions of some prompts with the scores of a model. M completions, P pairs."""

    prompts: NDArray[np.int64]
    numbers: NDArray[np.int64]
    """(M,): which completion of the split each is."""
    scores: NDArray[np.float64]
    """(M,): raw."""
    pairs: Pairs
    """Those that are not tied, as places among the M."""

    @property
    def margins(self) -> NDArray[np.float64]:
        """(P,): by how much the better one's score is the higher."""
        return self.scores[self.pairs.better] - self.scores[self.pairs.worse]


@torch.no_grad()
def judge(
    model: ValueModel, data: Preferences, prompts: Sequence[int], progress: Callable[[int, int], None] | None = None
) -> ScoredCompletions:
    """Score every completion of these prompts, as many at once as TOKENS_AT_ONCE hold."""
    model.eval()
    device = model.score.device
    members = [number for prompt in prompts for number in data.members(int(prompt))]
    scores, start = np.zeros(len(members)), 0
    order = sorted(range(len(members)), key=lambda place: int(data.lengths[members[place]]))
    while start < len(order):
        stop = start + 1
        while stop < len(order) and (stop - start + 1) * data.lengths[members[order[stop]]] <= TOKENS_AT_ONCE:
            stop += 1
        some = order[start:stop]
        tokens, real = padded([text_of(data, members[place]).tolist() for place in some])
        scores[some] = model.scores(tokens.to(device), real.to(device)).double().cpu().numpy()
        start = stop
        if progress:
            progress(start, len(order))
    return ScoredCompletions(
        np.array(prompts, np.int64), np.array(members, np.int64), scores, pairs_among(data, prompts, "skip")
    )


def accuracy(judged: ScoredCompletions) -> Share:
    """Pairs whose better completion has the higher score; equal scores count half."""
    margins = judged.margins
    return share(float((margins > 0).sum() + 0.5 * (margins == 0).sum()), len(margins))


def calibration(margins: NDArray[np.float64]) -> list[Bin]:
    """What the model was sure of and how often it was right, bin by bin; bins without pairs are left out."""
    confidence = 1 / (1 + np.exp(-np.abs(margins)))
    right = np.where(margins == 0, 0.5, margins > 0)
    places = np.minimum(((confidence - 0.5) * 2 * BINS).astype(int), BINS - 1)
    return [
        Bin(pairs=int(inside.sum()), confidence=float(confidence[inside].mean()), accuracy=float(right[inside].mean()))
        for place in range(BINS)
        if (inside := places == place).any()
    ]


def calibration_error(bins: Sequence[Bin]) -> float:
    """The expected calibration error; 0 without pairs."""
    total = sum(one.pairs for one in bins)
    return sum(one.pairs / total * abs(one.accuracy - one.confidence) for one in bins) if total else 0.0
