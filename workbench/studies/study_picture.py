"""A scaling study drawn: losses against compute, a curve of the law for each size, and the compute-optimal line."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from stages.store.scaling import FLOPS, Fit
from workbench.plots.picture import PLAIN, Key, Picture
from workbench.plots.plot import Curve
from workbench.plots.scope import Range, Scope
from workbench.studies.study import Point, Study, frontier
from workbench.studies.study_lines import short
from workbench.themes import MARKERS

STEPS = 24
"""Points of a curve of the law."""
MARGIN = 0.15
"""Powers of ten that the axis goes beyond the runs."""


def study_picture(study: Study, fit: Fit | None, *, log: bool = False) -> Picture:
    """Each size in its colour and marker, the law as lines; x counts powers of ten of floating-point operations."""
    picture = Picture("loss by log₁₀ of FLOP", log=log, empty="no run has finished yet")
    measured = [point for point in study.points if point.loss is not None]
    if not measured:
        return picture
    ends = (min(map(_place, study.points)) - MARGIN, max(map(_place, study.points)) + MARGIN)
    picture.scope = Scope("steps", Range(*ends))
    sizes: dict[int, list[Point]] = defaultdict(list)
    for point in measured:
        sizes[point.parameters].append(point)
    for place, (size, points) in enumerate(sorted(sizes.items())):
        role, marker = place % len(MARKERS), MARKERS[place % len(MARKERS)]
        if fit is not None:
            picture.curves.append(Curve(_law_of(size, points, fit), role))
        picture.keys.append(Key(marker, role, f"{short(size)}{' check' if points[0].is_check else ''}", ""))
    if fit is not None:
        line = [(math.log10(flops), loss) for flops, loss in frontier(fit, study.points)]
        picture.curves.append(Curve(line, PLAIN))
        picture.keys.append(Key("━", PLAIN, "compute-optimal", ""))
    for place, (_, points) in enumerate(sorted(sizes.items())):
        role, marker = place % len(MARKERS), MARKERS[place % len(MARKERS)]
        dots = sorted((_place(point), point.loss) for point in points if point.loss is not None)
        picture.curves.append(Curve(dots, role, marker, joined=False))
    return picture


def _place(point: Point) -> float:
    return math.log10(point.flops)


def _law_of(size: int, points: Sequence[Point], fit: Fit) -> list[tuple[float, float]]:
    """The law for one size over the budgets of its runs."""
    low, high = min(point.tokens for point in points), max(point.tokens for point in points)
    ratio = (high / low) ** (1 / (STEPS - 1)) if high > low else 1.0
    budgets = [low * ratio**number for number in range(STEPS)]
    return [(math.log10(FLOPS * size * tokens), fit.law.loss(size, tokens)) for tokens in budgets]
