"""What an evaluation found: evaluation.json in its run's directory."""

from __future__ import annotations

from pathlib import Path

import msgspec

from stages.store.datasets import Kind
from stages.store.errors import UserError
from stages.store.files import read_facts
from stages.store.rundir import RunDir
from stages.store.statistics import Share

FILE = "evaluation.json"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer, to be read."""

    prompt: str
    text: str
    wanted: str | None = None
    right: bool | None = None


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One checkpoint."""

    checkpoint: str
    """As people write it: run@step, or a model's name."""
    step: int
    figures: dict[str, float] = {}
    """loss (nats a token), perplexity, bits_per_byte."""
    shares: dict[str, Share] = {}
    """Right of all: `exact` or `choice`, and by group (the family or task that records name) `exact/GROUP`."""
    answers: list[Answer] = []
    note: str = ""


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """All checkpoints on one dataset."""

    dataset: str
    dataset_digest: str
    kind: Kind
    split: str
    records: int
    rows: list[Row] = []
    schema: int = 1


def read_evaluation(run: RunDir) -> Evaluation:
    """The evaluation of a run, as far as it has come; UserError when there is none or it cannot be read."""
    path: Path = run.path / FILE
    if not path.exists():
        raise UserError(f"{run.id} has no evaluation yet.")
    return read_facts(path, Evaluation)


def columns(found: Evaluation) -> list[str]:
    """Names of all figures and shares, in the order of their first appearance; groups come last."""
    names = dict.fromkeys(name for row in found.rows for name in (*row.figures, *row.shares))
    return sorted(names, key=lambda name: "/" in name)
