"""The plots of a report card: how sure a reward model is and how right, and score against length."""

from __future__ import annotations

from stages.store.rewards import ReportCard
from workbench.plots.picture import FAINT, Key, Picture, figure
from workbench.plots.plot import Curve


def reliability(card: ReportCard) -> Picture:
    """How often the model is right where it is so sure; on the diagonal when it is as sure as it ought to be."""
    points = [(100 * one.confidence, 100 * one.accuracy) for one in card.bins]
    shown = Picture("% right, by % sure", empty="no pair to judge", end=100.0)
    if points:
        shown.curves = [
            Curve([(50.0, 50.0), (100.0, 100.0)], FAINT),
            Curve(points, 0),
            Curve(points, 0, "●", joined=False),
        ]
        shown.keys = [Key("●", 0, "expected error", f"{100 * card.ece:.1f} %")]
    return shown


def score_against_length(card: ReportCard) -> Picture:
    """Normalised score against tokens, a mark a completion."""
    points = [(float(tokens), score) for tokens, score in sorted(card.points)]
    shown = Picture("score, by tokens", empty="no completion was scored")
    if points:
        shown.curves = [Curve(points, 0, "•", joined=False)]
        if card.length_correlation is not None:
            shown.keys = [Key("•", 0, "correlation", figure(card.length_correlation))]
    return shown
