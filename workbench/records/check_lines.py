"""The data doctor's report as lines of text, for the command line and for the screen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from stages.store.checks import Check, Finding, Lengths
from workbench.display import displayable_line, shortened

PROBLEMS = 10
PARTS = " ▏▎▍▌▋▊▉█"


def fact_lines(check: Check) -> Iterator[str]:
    """Kind, counts and notes."""
    records = ", ".join(f"{count:,} {split}" for split, count in check.records.items() if split != "all")
    total = sum(check.records.values())
    counts = (("record", total, f" ({records})" if records else ""), ("character", check.characters, ""))
    yield " · ".join([check.kind, *(f"{n:,} {name}{'s' * (n != 1)}{more}" for name, n, more in counts)])
    yield f"{check.files:,} file{'s' * (check.files != 1)} · {check.bytes:,} bytes"
    yield from map(displayable_line, check.notes)


def verdict(check: Check) -> str:
    """What is said where there is no finding."""
    if not sum(check.records.values()):
        return "No record was found in it, so nothing could be looked at."
    return "Nothing suspicious was found."


def problem_lines(check: Check) -> Iterator[str]:
    """What could not be read."""
    if not check.problem_count:
        return
    yield f"Could not be read: {check.problem_count:,}"
    for problem in check.problems[:PROBLEMS]:
        place = ":".join(filter(None, [problem.file, str(problem.line) if problem.line else "", problem.field]))
        yield displayable_line(f"  {place}: {problem.message}")
    if (more := check.problem_count - PROBLEMS) > 0:
        yield f"  … and {more:,} more"


def length_lines(lengths: Lengths, width: int) -> Iterator[str]:
    """Quantiles and a histogram of at most `width` columns."""
    yield f"Lengths in {lengths.unit}: {lengths.least:,} to {lengths.most:,}, {lengths.mean:,.0f} on average"
    yield "  " + "  ".join(f"{name} {value:,}" for name, value in lengths.quantiles.items())
    names = [f"{bar.low:,} – {bar.high - 1:,}" for bar in lengths.bars]
    counts = [f"{bar.count:,}" for bar in lengths.bars]
    left, right = max(map(len, names), default=0), max(map(len, counts), default=0)
    room = max(5, width - left - right - 6)
    most = max((bar.count for bar in lengths.bars), default=0)
    for name, count, bar in zip(names, counts, lengths.bars, strict=True):
        yield f"  {name:>{left}}  {count:>{right}}  {_block(bar.count / max(1, most), room)}".rstrip()


def finding_lines(finding: Finding, width: int) -> Iterator[str]:
    """A finding with its examples and its fix."""
    yield f"{finding.name}: {finding.count:,}. {displayable_line(finding.sentence)}"
    for example in finding.examples:
        place = displayable_line(example.place)
        yield f"    {place}  {shortened(example.text, max(20, width - len(place) - 6))}"
    yield from (f"    {line}" for line in remedy(finding))


def remedy(finding: Finding) -> Iterator[str]:
    """What can be done about a finding."""
    if finding.fix:
        yield displayable_line(f"fix: {' '.join(f'--set {key}={value_text(v)}' for key, v in finding.fix.items())}")
    if finding.advice:
        yield displayable_line(finding.advice)


def value_text(value: Any) -> str:
    """A setting's value as it is written after `--set key=`."""
    return (
        ",".join(map(str, value)) if isinstance(value, list) else value if isinstance(value, str) else json.dumps(value)
    )


def _block(share: float, room: int) -> str:
    """A bar of eighths of a cell; something is always to be seen where there is something."""
    eighths = max(round(share * room * 8), 1 if share > 0 else 0)
    return PARTS[8] * (eighths // 8) + PARTS[eighths % 8].strip()
