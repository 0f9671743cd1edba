"""The cockpit's gauges read off a run's curves: value, band, verdict, and a line that shows where it comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from stages.store.bands import GAUGES, Band, Gauge, Verdict, band_of, sentence_of
from workbench.plots.curves import Curves
from workbench.plots.picture import figure
from workbench.plots.series import Bucket, fewer

BLOCKS = "▁▂▃▄▅▆▇█"
SPARK = 12
"""Cells of the line that shows where a figure comes from."""


class Reading(NamedTuple):
    """What a gauge says now."""

    gauge: Gauge
    value: float
    band: Band
    verdict: Verdict | None
    spark: str

    @property
    def text(self) -> str:
        """The value as people read it."""
        return _shown(self.gauge, self.value, 3)

    @property
    def bounds(self) -> str:
        """The band in a few characters, empty when it is open on both sides."""
        low, high = (None if bound is None else _shown(self.gauge, bound, 2) for bound in self.band)
        if low is not None and high is not None:
            return f"{low}–{high}"
        return f"≥ {low}" if low is not None else f"≤ {high}" if high is not None else ""

    @property
    def sentence(self) -> str:
        """What leaving the band means; empty within it."""
        return sentence_of(self.gauge, self.verdict) if self.verdict else ""


def readings(curves: Curves, settings: Mapping[str, Any]) -> Iterator[Reading]:
    """The gauges that a run has figures for, in the order of the cockpit."""
    for gauge in GAUGES:
        buckets = curves.buckets(gauge.metric)
        if buckets:
            spreads = curves.buckets(gauge.spread) if gauge.spread else ()
            band = band_of(gauge, settings, buckets[0].begin, spreads[0].begin if spreads else None)
            value = buckets[-1].end
            yield Reading(gauge, value, band, band.verdict(value), spark(buckets))


def spark(buckets: Sequence[Bucket], width: int = SPARK) -> str:
    """A curve in one line of at most `width` cells, from its lowest to its highest value."""
    values = [bucket.mean for bucket in fewer(buckets, width)]
    low, high = min(values), max(values)
    if high <= low:
        return BLOCKS[0] * len(values)
    return "".join(BLOCKS[round((value - low) / (high - low) * (len(BLOCKS) - 1))] for value in values)


def _shown(gauge: Gauge, value: float, digits: int) -> str:
    if gauge.unit == "%":
        return f"{100 * value:.0f}%"
    return figure(float(f"{value:.{digits}g}"))
