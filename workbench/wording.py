"""How figures and the state of a run are said, in the app and on the command line: counts, sizes, speeds, durations."""

from __future__ import annotations

from typing import Any

from stages.store.rundir import RunState, Status
from workbench.display import displayable_line

SCALES = ("bytes", "kB", "MB", "GB")
"""Powers of a thousand bytes."""


def summary(state: RunState, status: Status) -> str:
    """Where a run stands, in one line: `running  240/2,000 steps  12 %  41 steps/s  0:43 to go`."""
    parts: list[str] = [status]
    if state.total:
        parts += [portion(state.step, state.total, state.unit)]
        parts += [f"{min(1.0, state.step / state.total):.0%}"]
    if status == "running" and state.rate:
        parts.append(speed(state.rate, state.unit))
    if status == "running" and state.eta is not None:
        parts.append(f"{duration(state.eta)} to go")
    if state.phase and status in ("queued", "running", "paused"):
        parts.append(state.phase)
    return "  ".join(parts)


def standing(state: RunState, status: Status) -> str:
    """Where a run stands, for a column: `12%  6:20`, `encoding 40%`, `paused 22%`."""
    share = f"{min(1.0, state.step / state.total):.0%}" if state.total else ""
    if status == "running":
        left = f" {duration(state.eta):>5}" if state.eta is not None and share else ""
        return " ".join(filter(None, (displayable_line(state.phase), f"{share}{left}"))) or "starting"
    return f"{status} {share}" if share and status in ("paused", "lost", "stopped", "failed") else status


def amount(number: float, unit: str) -> str:
    """A count with its unit, for people: `2,000 steps`, `17.3 kB`."""
    if unit != "bytes":
        return f"{number:,.0f} {unit}"
    scale = _scale(number)
    return f"{_digits(number, scale)} {SCALES[scale]}"


def portion(done: int, total: int, unit: str) -> str:
    """So much of so many: `240/2,000 steps`, `3.2/17.3 MB`."""
    if unit != "bytes":
        return f"{done:,}/{total:,} {unit}"
    scale = _scale(total)
    return f"{_digits(done, scale)}/{_digits(total, scale)} {SCALES[scale]}"


def speed(value: float, unit: str) -> str:
    """Units a second, with about three digits: `41 steps/s`, `3.2 MB/s`."""
    if unit == "bytes":
        return f"{amount(value, unit)}/s"
    return f"{f'{value:,.0f}' if value >= 100 else f'{value:.3g}'} {unit}/s"


def operations(flops: float) -> str:
    """Floating-point operations in words that are read aloud: `64 TFLOP`, `2.1 EFLOP`."""
    digits = float(f"{flops:.3g}")
    for unit, letter in ((1e24, "Y"), (1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if unit <= digits < 1e27:
            return f"{digits / unit:.3g} {letter}FLOP"
    return f"{flops:.3g} FLOP"


def _scale(number: float) -> int:
    return next((scale for scale in (3, 2, 1) if number >= 1000**scale), 0)


def _digits(number: float, scale: int) -> str:
    return f"{number / 1000**scale:,.1f}" if scale else f"{number:,.0f}"


def duration(seconds: float) -> str:
    """`0:43`, `12:05` or `3:07:00`."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def value_text(value: Any, digits: int = 6) -> str:
    """A value as people write it: yes and no, thousands set apart, figures with so many digits that count.

    A list's values stand behind commas; nothing stands for None. Text stays as it is, foreign or not.
    """
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.{digits}g}"
        case list():
            return ", ".join(map(str, value))
    return str(value)


def cell_text(value: Any) -> str:
    """A value in a table: on one line, with four digits that count; text made harmless."""
    return displayable_line(value_text(value, digits=4))


def metric_text(name: str, value: Any) -> str:
    """The value of a metric in a table, in a unit of its own where it has one."""
    is_count = isinstance(value, int | float) and not isinstance(value, bool)
    return operations(value) if name == "compute" and is_count else cell_text(value)
