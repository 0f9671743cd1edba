"""The newest value of every metric of a run, from the end of its file."""

from __future__ import annotations

import msgspec

from stages.store.rundir import RunDir

TAIL = 65_536
"""Bytes at the end of metrics.jsonl in which the last figures are looked for."""


def last_figures(run: RunDir) -> dict[str, float]:
    """The newest value of every metric, as far as the end of the file tells."""
    if not run.metrics.exists():
        return {}
    with run.metrics.open("rb") as file:
        file.seek(max(0, run.metrics.stat().st_size - TAIL))
        lines = file.read().split(b"\n")
    rows: list[dict[str, float]] = []
    for line in lines:
        try:
            row = msgspec.json.decode(line, type=dict[str, float])
        except msgspec.DecodeError:
            continue  # the first line of the tail is cut, the last may be half written
        if "rewind_to" in row:
            rows = [kept for kept in rows if kept.get("step", 0) <= row["rewind_to"]]
        else:
            rows.append(row)
    found = {key: value for row in rows for key, value in row.items()}
    return {key: value for key, value in found.items() if key not in ("step", "time")}
