"""A fitted law in words, for the command line and the screen."""

from __future__ import annotations

from stages.store.scaling import Fit, Forecast, Interval
from workbench.plots.series import figure
from workbench.studies.study import Point


def law_lines(fit: Fit) -> list[str]:
    """The law with its constants and what follows for compute, a line each."""
    law, of = fit.law, fit.intervals
    constants = ", ".join(f"{name} {_ends(of[name])}" for name in ("E", "alpha", "beta"))
    return [
        f"L(N, D) = {law.E:.3f} + {figure(law.A)} / N^{law.alpha:.3f} + {figure(law.B)} / D^{law.beta:.3f}",
        f"{fit.points} runs, {100 * fit.error:.2f} % off; 95 %: {constants}",
        f"compute-optimal: N grows as C^{told(of['share'])}, D as C^{1 - law.shares[0]:.3f}",
    ]


def check_line(point: Point, forecast: Forecast, miss: float | None) -> str:
    """What was forecast of the next size, and what came out."""
    measured = "not measured yet" if miss is None else f"measured {point.loss:.4f}, {100 * miss:+.2f} %"
    return f"next size: forecast {told(forecast.loss)}, {measured}"


def told(interval: Interval) -> str:
    """`1.234 (1.201 to 1.270)`."""
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def short(count: float) -> str:
    """A count in three digits: `11.4k`, `500k`, `1M`."""
    for unit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= unit * 0.9995:
            return f"{count / unit:.3g}{letter}"
    return f"{count:.3g}"


def _ends(interval: Interval) -> str:
    return f"{interval.low:.2f}–{interval.high:.2f}"
