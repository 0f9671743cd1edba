"""Runs side by side: what was asked of them that differs, and the last value of every metric."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from stages.store.rundir import RunDir
from stages.store.specs.parents import extra_parents
from workbench.plots.curves import Track
from workbench.plots.scope import AXES


def columns_of(runs: Sequence[RunDir]) -> list[str]:
    """What to call each run: its name, or its id where two have the same."""
    names = [run.spec().name for run in runs]
    count = Counter([*names, "name", "kind", *AXES])
    return [name if count[name] == 1 else run.id for name, run in zip(names, runs, strict=True)]


def row_of(name: str, kind: str, columns: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """A row of a table with a column a run."""
    return {"name": name, "kind": kind, **dict(zip(columns, values, strict=True))}


def differences(runs: Sequence[RunDir], columns: Sequence[str]) -> list[dict[str, Any]]:
    """A row for everything asked for that is not the same in all runs: stage, parents, seed, settings."""
    asked: list[dict[str, Any]] = []
    for run in runs:
        spec = run.spec()
        called = {one.role: one.field for one in extra_parents(spec.stage)}  # a role may be a setting's name as well
        parents = {
            called.get(role, role): f"{parent.name} {parent.digest[:8]}".strip()
            for role, parent in spec.parents.items()
        }
        asked.append({"stage": spec.stage, **parents, "seed": spec.seed, **spec.settings})
    names = dict.fromkeys(name for values in asked for name in values)
    rows = [(name, [values.get(name) for values in asked]) for name in names]
    return [
        row_of(name, "setting", columns, [_plain(value) for value in values])
        for name, values in rows
        if any(value != values[0] for value in values)
    ]


def last_values(tracks: Sequence[Track], columns: Sequence[str]) -> list[dict[str, Any]]:
    """A row for every metric that any of them has logged, with its last value in each; None where it has none."""
    names = dict.fromkeys(name for track in tracks for name in track.whole.metrics())
    return [row_of(name, "metric", columns, [_latest(track, name) for track in tracks]) for name in names]


def _latest(track: Track, metric: str) -> float | int | None:
    latest = track.whole.latest(metric)
    if latest is None:
        return None
    return int(latest[1]) if latest[1].is_integer() else latest[1]


def _plain(value: Any) -> Any:
    """Lists and the like as text, for a cell."""
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
