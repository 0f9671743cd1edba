"""What part of a run a plot shows: against steps, tokens, time or compute, all or a range. How a range is written."""

from __future__ import annotations

import math
import re
from typing import Literal, NamedTuple, get_args

from stages.store.errors import UserError
from workbench.plots.series import tick_label
from workbench.wording import duration

Axis = Literal["steps", "tokens", "time", "compute"]
AXES: tuple[Axis, ...] = get_args(Axis)
"""What curves can be drawn against; time is in seconds since the run's first row, compute in FLOP."""
MEASURES: dict[Axis, str] = {"steps": "steps", "tokens": "tokens", "time": "seconds", "compute": "FLOP"}
"""What each counts."""
COUNTED: dict[Axis, str] = {**MEASURES, "time": "time"}
"""What is written along each; clock times are no count of seconds."""

_UNITS = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_DASH = re.compile(r"\s*(?:\.\.|–|(?<![eE])-)\s*")


class Range(NamedTuple):
    """From `left` to `right`, both included; None is where the data begin or end."""

    left: float | None = None
    right: float | None = None


WHOLE = Range()


class Scope(NamedTuple):
    """An axis and a range of it."""

    axis: Axis = "steps"
    range: Range = WHOLE

    def against_next(self) -> Scope:
        """The next axis, all of it: a range of one says nothing about another."""
        return Scope(AXES[(AXES.index(self.axis) + 1) % len(AXES)])

    def zoomed(self, factor: float, shown: tuple[float, float]) -> Scope:
        """`factor` times what is `shown` (left, right), about its middle."""
        middle, half = sum(shown) / 2, (shown[1] - shown[0]) / 2 * factor
        return self._replace(range=Range(max(0.0, middle - half), middle + half))

    def panned(self, share: float, shown: tuple[float, float]) -> Scope:
        """Moved by a share of what is `shown`; nothing moves beyond zero, nor while all is shown."""
        if self.range == WHOLE:
            return self
        by = max(share * (shown[1] - shown[0]), -shown[0])
        return self._replace(range=Range(shown[0] + by, shown[1] + by))


EVERYTHING = Scope()
"""All steps."""


def parse_range(text: str, axis: Axis) -> Range:
    """`1000-5000`, `1k-5k`, `2M-` (to the end), `-500` (from the beginning), `5:00-1:30:00` or `10m-2h` for time.

    An empty text is the whole. Raises UserError for all else.
    """
    ends = _DASH.split(text.strip(), maxsplit=1)
    if ends == [""]:
        return WHOLE
    if len(ends) != 2:
        raise UserError(f"{text!r} is no range.", example(axis))
    left, right = (_number(end, axis) if end else None for end in ends)
    if left is not None and right is not None and left >= right:
        raise UserError(f"{text!r} ends before it begins.", example(axis))
    return Range(left, right)


def range_text(range_: Range, axis: Axis) -> str:
    """A range as `parse_range` reads it; empty for the whole."""
    return "" if range_ == WHOLE else "-".join("" if end is None else _text(end, axis) for end in range_)


def _text(value: float, axis: Axis) -> str:
    if axis == "time":
        return duration(value) if value >= 60 else f"{value:.3g}"
    short = tick_label(value)
    return short if count_of(short) == round(value) else f"{value:.0f}"


def _number(text: str, axis: Axis) -> float:
    try:
        value = _seconds(text) if axis == "time" else count_of(text)
    except (ValueError, OverflowError):
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise UserError(f"{text!r} is no number of {MEASURES[axis]}.", example(axis))
    return value


def count_of(text: str) -> float:
    """A count as people write it: `500`, `1,000`, `250k`, `1.5M`; ValueError for all else."""
    text = text.strip()
    unit = _UNITS.get(text[-1:].replace("K", "k"), 1.0)
    return float((text if unit == 1.0 else text[:-1]).replace(",", "").replace("_", "")) * unit


def _seconds(text: str) -> float:
    if ":" in text:
        parts = [float(part) for part in text.split(":")]
        return sum(part * 60.0**place for place, part in enumerate(reversed(parts)))
    unit = _SECONDS.get(text[-1:], 0.0)
    return float(text[:-1]) * unit if unit else float(text)


def example(axis: Axis) -> str:
    """How a range of an axis may be written."""
    return {
        "steps": "Write 1000-5000, 2k- or -500.",
        "tokens": "Write 1M-5M, 2M- or -500k.",
        "time": "Write 5:00-1:30:00, 10m-2h, 90- or -2h.",
        "compute": "Write 1T-5T, 2e15- or -500P.",
    }[axis]
