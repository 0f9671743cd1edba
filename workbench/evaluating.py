"""Evaluations as people ask for them and read them: which checkpoints, what they are called, what the table says."""

from __future__ import annotations

import re
from collections.abc import Container

from stages.store.checkpoints import list_checkpoints, resolve_checkpoint
from stages.store.datasets import list_datasets
from stages.store.errors import UserError
from stages.store.evaluations import Evaluation, Row
from stages.store.rundir import find_run, list_runs
from stages.store.workspace import Workspace

MEASURED = {
    "text": "loss, perplexity and bits a byte",
    "chat": "loss, perplexity and bits a byte of what the assistant says",
    "prompts": "right answers, by family",
    "labelled": "right choices among several",
}
"""What is measured on each kind of dataset."""

TASKS = {"prompts": "right if the answer that is written is exact", "labelled": "right if its likeliest option is"}
"""What in-context evaluation says of each kind of dataset."""

LOWER = ("loss", "perplexity", "bits_per_byte")
"""Measures of which less is better."""


def expanded(workspace: Workspace, text: str) -> list[str]:
    """The checkpoints that `text` means: one, or with @all every one of a run. UserError where there is none."""
    if not text.endswith("@all"):
        resolve_checkpoint(workspace, text)
        return [text]
    name = text.removesuffix("@all")
    found = [f"{name}@{checkpoint.step}" for checkpoint in list_checkpoints(find_run(workspace, name))]
    if not found:
        raise UserError(f"The run {name!r} has no checkpoint.")
    return found


def listed(workspace: Workspace, text: str, *, every: bool = False) -> list[str]:
    """The checkpoints that a line names, separated by commas; with `every`, all of a run that is named alone."""
    names = [name for part in text.split(",") if (name := part.strip())]
    if not names:
        raise UserError("No checkpoint is named.", "Name a run, run@step, an imported model or a folder.")
    wanted = [f"{name}@all" if every and _is_run(workspace, name) else name for name in names]
    return list(dict.fromkeys(one for name in wanted for one in expanded(workspace, name)))


def name_for(checkpoint: str, dataset: str) -> str:
    """What to call an evaluation: made of its first checkpoint and the dataset."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", checkpoint).strip("-._")
    return f"{stem[:40].rstrip('-._') or 'model'}-on-{dataset[:20]}".rstrip("-")


def measurable(workspace: Workspace, kinds: Container[str] = MEASURED) -> list[str]:
    """Names of the datasets of these kinds, on which checkpoints can be measured; the newest first."""
    found = [dataset for dataset in list_datasets(workspace) if dataset.info.kind in kinds]
    return [dataset.name for dataset in sorted(found, key=lambda dataset: -dataset.info.created)]


def names_of_runs(workspace: Workspace) -> set[str]:
    """Names of all readable runs."""
    names = set()
    for run in list_runs(workspace):
        try:
            names.add(run.spec().name)
        except UserError:
            continue
    return names


def cells(row: Row) -> dict[str, str]:
    """What was measured of one checkpoint, for a table: figures, and shares with their intervals."""
    return {name: _figure(value) for name, value in row.figures.items()} | {
        name: str(share) for name, share in row.shares.items()
    }


def best(found: Evaluation, measure: str) -> list[int]:
    """Places of the checkpoints that do best by a measure; none where all do alike."""
    values = [value_of(row, measure) for row in found.rows]
    known = [value for value in values if value is not None]
    if len(set(known)) < 2:
        return []
    top = min(known) if measure in LOWER else max(known)
    return [place for place, value in enumerate(values) if value == top]


def heading(checkpoint: str, width: int) -> str:
    """The name of a checkpoint in at most `width` characters: the end, which has the step, stays."""
    if len(checkpoint) <= width:
        return checkpoint
    head = (width - 1) // 2
    return f"{checkpoint[:head]}…{checkpoint[head + 1 - width :]}"


def value_of(row: Row, measure: str) -> float | None:
    """A figure as it is, a share in per cent."""
    if measure in row.shares:
        value = row.shares[measure].value
        return None if value is None else 100 * value
    return row.figures.get(measure)


def _is_run(workspace: Workspace, name: str) -> bool:
    if "@" in name or "/" in name or (workspace.models / name).is_dir():
        return False
    try:
        find_run(workspace, name)
    except UserError:
        return False
    return True


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
