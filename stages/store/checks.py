"""What the data doctor finds, as it travels from the desk to the app and the command line."""

from __future__ import annotations

from typing import Any

import msgspec

from stages.store.datasets import Kind, Problem


class Example(msgspec.Struct, frozen=True):
    """One record that shows a finding: where it is, and what is there."""

    place: str
    """File and line; for a dataset, the split and the number from 1."""
    text: str


class Finding(msgspec.Struct, frozen=True):
    """Something suspicious about the data."""

    name: str
    sentence: str
    count: int
    examples: list[Example] = []
    fix: dict[str, Any] = {}
    """Settings of a build that put it right; empty where none does."""
    advice: str = ""
    """What else one can do."""


class Bar(msgspec.Struct, frozen=True):
    """How many records have lengths from `low` up to, and not with, `high`."""

    low: int
    high: int
    count: int


class Lengths(msgspec.Struct, frozen=True):
    """How long the records are, in `unit`: characters or tokens."""

    unit: str
    least: int
    most: int
    mean: float
    quantiles: dict[str, int]
    """By name: p5, p25, p50, p75, p95, p99, in percent of the records."""
    bars: list[Bar]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """The report of one check."""

    name: str
    """The sources or the dataset that was checked."""
    kind: Kind
    records: dict[str, int]
    """By split; sources have one, `all`."""
    files: int
    bytes: int
    """Of the files that were read; of the text, for a dataset."""
    characters: int
    notes: list[str]
    """What is worth knowing and not suspicious: encodings, line endings, scripts, labels."""
    lengths: list[Lengths]
    findings: list[Finding]
    problems: list[Problem]
    problem_count: int
    sources: list[str]
    """With which a build form can be filled in; those of the dataset, where one was checked."""
    settings: dict[str, Any] = {}
    """The settings with which the dataset was built; the fixes go on top."""

    def fixes(self) -> dict[str, Any]:
        """All fixes together, as settings of a build."""
        fixes: dict[str, Any] = {}
        for finding in self.findings:
            fixes.update(finding.fix)
        return fixes
