"""Alarms of a policy run: an event when a figure leaves its healthy band, and a pause when KL or length run away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from stages.loop import Progress
from stages.run import Run
from stages.store.bands import GAUGES, Band, Gauge, band_of, sentence_of

PAUSING = ("policy/kl", "policy/length")
"""Figures that pause the run when they are too high."""

CALM = 10
"""Steps that a figure must be back in its band before leaving it raises an alarm again."""
FURTHER = 1.3
"""A run that is resumed after a pause may go on until the figure is higher by this factor."""


class Watched(msgspec.Struct):
    """What alarms remember between steps, and across a resume."""

    starts: dict[str, float] = {}
    """First values of figures whose bands look back to them, and of their spreads."""
    lit: dict[str, int] = {}
    """Figures that have left their bands, and for how many steps they have been back."""
    allowed: dict[str, float] = {}
    """Bounds that a resume after a pause has raised, by figure."""


class Alarms:
    """Compares each row of metrics with the bands of `stages.store.bands`."""

    def __init__(self, run: Run, watched: Watched, settings: Mapping[str, Any], *, pauses: bool) -> None:
        self._run, self._watched, self._settings, self._pauses = run, watched, settings, pauses

    def check(self, progress: Progress, row: Mapping[str, float]) -> None:
        """Raise an alarm for each figure of the row that has left its band since the last one."""
        for gauge in GAUGES:
            value = row.get(gauge.metric)
            if value is None:
                continue
            if gauge.relative:
                self._watched.starts.setdefault(gauge.metric, value)
            if gauge.spread and gauge.spread in row and gauge.spread not in self._watched.starts:
                self._watched.starts |= {gauge.metric: value, gauge.spread: row[gauge.spread]}
            self._look(gauge, value, progress.step)

    def _look(self, gauge: Gauge, value: float, step: int) -> None:
        band = self._band(gauge)
        verdict = band.verdict(value)
        lit = self._watched.lit
        if verdict is None:
            if gauge.metric in lit:
                lit[gauge.metric] += 1
            if lit.get(gauge.metric) == CALM:
                del lit[gauge.metric]
            return
        pausing = self._pauses and verdict == "high" and gauge.metric in PAUSING
        known, lit[gauge.metric] = gauge.metric in lit, 0
        if known and not pausing:
            return
        sentence = sentence_of(gauge, verdict)
        self._run.event(
            "alarm", metric=gauge.metric, value=value, band=[band.low, band.high], sentence=sentence, step=step
        )
        print(f"alarm at step {step}: {gauge.title} {value:.4g}. {sentence}", flush=True)
        if pausing:
            self._pause(gauge, value, sentence)

    def _pause(self, gauge: Gauge, value: float, sentence: str) -> None:
        allowed = value * FURTHER
        self._watched.allowed[gauge.metric] = allowed
        self._run.requests.pause = True
        self._run.requests.why = (
            f"{sentence} Paused at {gauge.title} {value:.3g} {gauge.unit}; resuming goes on up to {allowed:.3g}."
        )

    def _band(self, gauge: Gauge) -> Band:
        starts = self._watched.starts
        band = band_of(gauge, self._settings, starts.get(gauge.metric), starts.get(gauge.spread))
        allowed = self._watched.allowed.get(gauge.metric)
        return band if allowed is None or band.high is None else Band(band.low, max(band.high, allowed))
