"""The sorted table of a group of runs: what varies, how each run stands, and the metric that sorts."""

from __future__ import annotations

from typing import Any

from stages.store.groups import Group
from workbench.studies.groups import Standing
from workbench.studies.sweeps import as_typed
from workbench.wording import standing

RESERVED = frozenset(("name", "status", "kind"))


def columns_of(group: Group, metric: str) -> list[str]:
    """Keys of a row in the order of the table."""
    return ["name", *(_key(key) for key in group.over), "status", metric]


def row_of(row: Standing, metric: str) -> dict[str, Any]:
    """One run: its name, the settings that vary, where it stands, the metric."""
    stands = standing(row.state, row.status) if row.state is not None and row.status is not None else "not launched"
    return {
        "name": row.member.name,
        **{_key(key): as_typed(value) for key, value in row.member.values.items()},
        "kind": row.member.role or "run",
        "status": stands,
        metric: row.figures.get(metric),
    }


def _key(setting: str) -> str:
    return f"{setting} (setting)" if setting in RESERVED else setting
