"""What a healthy policy run looks like: for each gauge of the cockpit a band, and a sentence for leaving it.

The worker raises its alarms by them, and the app lights its lamps. Where a run's settings name a bound, that one holds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

Verdict = Literal["low", "high"]


class Gauge(NamedTuple):
    """One figure to keep an eye on. `low` and `high` bound the band; None where that side is open.

    relative: the bounds are multiples of the figure at the start of the run.
    spread: metric of the spread of what the figure is the mean of. The band then ends where the figure is below its
    start by more than chance explains (`CHANCE`).
    """

    metric: str
    title: str
    unit: str
    low: float | None
    high: float | None
    when_low: str
    when_high: str
    relative: bool = False
    setting: str = ""
    """Setting that takes the place of `high`."""
    spread: str = ""


CHANCE = 3.0
"""Standard errors by which a mean must fall short of the first one before that is no chance."""

GAUGES: tuple[Gauge, ...] = (
    Gauge(
        "reward/mean",
        "reward",
        "",
        None,
        None,
        "The reward has fallen below where it began, by more than chance: the step is too large, or the KL costs more "
        "than the answers earn.",
        "",
        spread="reward/std",
    ),
    Gauge(
        "policy/kl",
        "KL",
        "nats an answer",
        -1.0,
        10.0,
        "The KL estimate is negative: too few tokens, or the log-probabilities do not belong to the policy.",
        "The policy has gone far from its reference; what the reward model says of such answers means little.",
        setting="max_kl",
    ),
    Gauge(
        "policy/entropy",
        "entropy",
        "nats a token",
        0.2,
        3.0,
        "The policy hardly varies its answers any more, so it has nothing left to choose among.",
        "The policy grows random: a lower learning rate or a stronger KL penalty holds it.",
        relative=True,
    ),
    Gauge(
        "policy/length",
        "length",
        "tokens",
        0.4,
        1.7,
        "Answers have become much shorter than they were.",
        "Answers have become much longer than they were: the reward may pay for length.",
        relative=True,
        setting="max_length_ratio",
    ),
    Gauge(
        "policy/ratio",
        "ratio",
        "",
        0.8,
        1.25,
        "Updates make the sampled answers much less likely: the step is too large.",
        "Updates make the sampled answers much more likely: the step is too large.",
    ),
    Gauge("policy/clipped", "clipped", "%", None, 0.3, "", "A third of the tokens are clipped: the rate is too high."),
    Gauge(
        "value/explained_variance",
        "explained",
        "",
        0.0,
        None,
        "The value model predicts returns worse than their mean would: advantages are noise.",
        "",
    ),
    Gauge(
        "policy/ended",
        "ended",
        "%",
        0.7,
        None,
        "Many answers never come to an end: raise the penalty for a missing end, or the longest answer.",
        "",
    ),
    Gauge(
        "policy/advantage_std",
        "advantage spread",
        "",
        1e-3,
        None,
        "All answers score alike, so there is nothing to learn from.",
        "",
    ),
    Gauge(
        "policy/dead_groups",
        "dead groups",
        "%",
        None,
        0.8,
        "",
        "In most groups all answers score the same: the prompts are too easy, or too hard.",
    ),
)


class Band(NamedTuple):
    """The bounds of a gauge for one run."""

    low: float | None
    high: float | None

    def verdict(self, value: float) -> Verdict | None:
        """On which side of the band a value lies; None within it."""
        if self.low is not None and value < self.low:
            return "low"
        return "high" if self.high is not None and value > self.high else None


def band_of(gauge: Gauge, settings: Mapping[str, Any], start: float | None, spread: float | None = None) -> Band:
    """A gauge's band for a run with these settings, whose first value was `start`; `spread`: that of gauge.spread.

    A gauge that looks back to its start has no bounds before there is one.
    """
    if gauge.spread:
        return Band(_below_chance(settings, start, spread), None)
    asked = settings.get(gauge.setting) if gauge.setting else None
    low, high = gauge.low, float(asked) if isinstance(asked, int | float) and asked > 0 else gauge.high
    if not gauge.relative:
        return Band(low, high)
    if start is None or start <= 0:
        return Band(None, None)
    return Band(None if low is None else low * start, None if high is None else high * start)


def _below_chance(settings: Mapping[str, Any], start: float | None, spread: float | None) -> float | None:
    """CHANCE standard errors of the difference of two steps' means below the first: start − 3 σ √(2 / prompts).

    Completions of one prompt score alike, so prompts are what counts. None where all scored the same at the start.
    """
    prompts = settings.get("batch_size")
    if start is None or not spread or not isinstance(prompts, int) or prompts < 1:
        return None
    return start - CHANCE * spread * math.sqrt(2 / prompts)


def sentence_of(gauge: Gauge, verdict: Verdict) -> str:
    """What leaving the band means."""
    return gauge.when_low if verdict == "low" else gauge.when_high
