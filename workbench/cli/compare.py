"""`workbench compare`: runs side by side, in what was set, in what came out, and in one metric along the way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import click

from stages.store.errors import UserError
from stages.store.names import nearest
from stages.store.rundir import find_run
from workbench.board.differences import columns_of, differences, last_values, row_of
from workbench.cli.common import Environment, json_option, pass_environment, say_table
from workbench.plots.curves import Track
from workbench.plots.scope import AXES, Axis
from workbench.plots.series import Bucket, ticks
from workbench.wording import duration, metric_text, operations

PLACES = 10
"""Rows of a metric along the way, at most."""


@click.command("compare")
@click.argument("names", metavar="RUN RUN...", nargs=-1, required=True)
@click.option("--metric", help="Show this metric along the way, such as val/loss.")
@click.option(
    "--against", type=click.Choice(AXES), default="steps", show_default=True, help="Along what to show the metric."
)
@json_option
@pass_environment
def compare(env: Environment, names: Sequence[str], metric: str | None, against: Axis, as_json: bool) -> None:
    """Show runs side by side: settings that differ, and the last value of every metric.

    With --metric, the lowest and the highest value of a metric, and its mean along the way: each row is what the
    metric was from the row before up to there.
    """
    if len(names) < 2:
        raise UserError("One run is nothing to compare.", "Name two or more; `workbench runs` lists them.")
    runs = [find_run(env.workspace, name) for name in names]
    if len({run.id for run in runs}) < len(runs):
        raise UserError("A run was named twice.", "Name different runs; `workbench runs` lists them with --json by id.")
    columns = columns_of(runs)
    tracks = [Track(run.metrics) for run in runs]
    for track in tracks:
        track.catch_up()
    tables = [differences(runs, columns), last_values(tracks, columns)]
    if metric is not None:
        if without := [name for name, track in zip(names, tracks, strict=True) if not track.whole.has(against)]:
            told = f"{', '.join(map(repr, without))} logged no {against}, so nothing can be shown against it."
            raise UserError(told, "Runs that train log it; those of older versions may not have.")
        tables.append(_extremes(tracks, columns, metric) + _along(tracks, columns, metric, against))
    if as_json:
        say_table([row for table in tables for row in table], {}, as_json=True, empty="")
        return
    tables[1] = [
        {key: metric_text(row["name"], cell) if key in columns else cell for key, cell in row.items()}
        for row in tables[1]
    ]
    headings = ("setting", "last value", f"{metric}, {against}")
    for place, (table, heading) in enumerate(zip(tables, headings, strict=False)):
        if place:
            click.echo()
        empty = "Their settings are the same." if place == 0 else "They have logged no metric."
        say_table(table, {"name": heading, **{column: column for column in columns}}, as_json=False, empty=empty)


def _extremes(tracks: Sequence[Track], columns: Sequence[str], metric: str) -> list[dict[str, Any]]:
    found = [track.whole.buckets(metric) for track in tracks]
    if not any(found):
        names = sorted({name for track in tracks for name in track.whole.metrics()})
        raise UserError(f"None of these runs has logged {metric!r}.", nearest(metric, names))
    lows = [min((bucket.low for bucket in buckets), default=None) for buckets in found]
    highs = [max((bucket.high for bucket in buckets), default=None) for buckets in found]
    return [row_of("lowest", "extreme", columns, lows), row_of("highest", "extreme", columns, highs)]


def _along(tracks: Sequence[Track], columns: Sequence[str], metric: str, axis: Axis) -> list[dict[str, Any]]:
    """The metric's mean between round numbers of the axis."""
    found = [track.whole.buckets(metric, axis) for track in tracks]
    end = max((buckets[-1].last for buckets in found if buckets), default=math.nan)
    places = [place for place in ticks(0.0, end, PLACES) if place > 0] if end > 0 else []
    if places and places[-1] < end:
        places.append(end)
    rows = []
    for before, place in zip([-math.inf, *places], places, strict=False):
        values = [_mean([bucket for bucket in buckets if before < bucket.last <= place]) for buckets in found]
        if not any(value is not None for value in values):
            continue
        rows.append({axis: place, **row_of(_place(place, axis, end), "curve", columns, values)})
    return rows


def _place(place: float, axis: Axis, end: float) -> str:
    """A place on an axis that reaches to `end`."""
    if axis == "compute":
        return operations(place)
    return duration(place) if axis == "time" and end >= 60 else f"{place:,.4g}" if end < 10 else f"{place:,.0f}"


def _mean(buckets: Sequence[Bucket]) -> float | None:
    size = sum(bucket.size for bucket in buckets)
    return sum(bucket.total for bucket in buckets) / size if size else None
