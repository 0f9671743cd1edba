"""What the end of a run's metrics tells: the newest value of every metric, and how fast it went."""

from __future__ import annotations

import statistics

import msgspec

from stages.store.rundir import RunDir

TAIL = 65_536
"""Bytes at the end of metrics.jsonl in which the last figures are looked for."""


def last_figures(run: RunDir) -> dict[str, float]:
    """The newest value of every metric, as far as the end of the file tells."""
    found = {key: value for row in last_rows(run) for key, value in row.items()}
    return {key: value for key, value in found.items() if key not in ("step", "time")}


def usual(run: RunDir, metric: str) -> float | None:
    """The median of a metric over the last rows that have it; None where none has."""
    values = [row[metric] for row in last_rows(run) if metric in row]
    return statistics.median(values) if values else None


def last_rows(run: RunDir) -> list[dict[str, float]]:
    """The last rows of metrics.jsonl that count: those that a resumed worker took back are left out."""
    try:
        with run.metrics.open("rb") as file:
            file.seek(max(0, run.metrics.stat().st_size - TAIL))
            lines = file.read().split(b"\n")
    except OSError:  # none yet, or none that can be read: there are no figures
        return []
    rows: list[dict[str, float]] = []
    for line in lines:
        try:
            row = msgspec.json.decode(line, type=dict[str, float])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue  # the first line of the tail is cut, the last may be half written
        if "rewind_to" in row:
            rows = [kept for kept in rows if kept.get("step", 0) <= row["rewind_to"]]
        else:
            rows.append(row)
    return rows
