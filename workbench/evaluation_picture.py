"""The plot of an evaluation: a measure along the checkpoints of each run."""

from __future__ import annotations

from collections import defaultdict

from stages.store.evaluations import Evaluation, Row
from workbench.evaluating import value_of
from workbench.picture import FAINT, Key, Picture, figure
from workbench.plot import Curve
from workbench.themes import MARKERS


def picture_of(found: Evaluation, measure: str, *, log: bool = False) -> Picture:
    """A measure against the step, a line for each run with several checkpoints; shares in per cent.

    A run that is alone has the bounds of its intervals drawn faintly.
    """
    lines: dict[str, list[Row]] = defaultdict(list)
    for row in found.rows:
        run = row.checkpoint.rpartition("@")[0]
        if run and value_of(row, measure) is not None:
            lines[run].append(row)
    several = {run: sorted(rows, key=lambda row: row.step) for run, rows in lines.items() if len(rows) > 1}
    is_share = any(measure in row.shares for row in found.rows)
    shown = Picture(f"{measure}, %" if is_share else measure, log=log, note="log" if log else "")
    for role, (run, rows) in enumerate(list(several.items())[: len(MARKERS)]):
        points = [(float(row.step), value_of(row, measure) or 0.0) for row in rows]
        if is_share and len(several) == 1:
            shown.curves += [
                Curve([(x, 100 * bound(row)) for (x, _), row in zip(points, rows, strict=True)], FAINT)
                for bound in (lambda row: row.shares[measure].low, lambda row: row.shares[measure].high)
            ]
        shown.curves += [Curve(points, role), Curve(points, role, MARKERS[role], joined=False)]
        shown.keys.append(Key(MARKERS[role], role, run, figure(points[-1][1])))
    return shown


def has_line(found: Evaluation) -> bool:
    """Whether some run has several checkpoints here, so that there is something to plot."""
    runs = [name for row in found.rows if (name := row.checkpoint.rpartition("@")[0])]
    return len(set(runs)) < len(runs)
