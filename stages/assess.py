"""Judging a model that labels on a dataset: its accuracy, F1, confusion matrix and worst examples, as a run."""

from __future__ import annotations

from typing import Any

from stages.asking.labeller import Labeller
from stages.data.labelled import read_examples, survey
from stages.loop import set_up_torch
from stages.measuring.assessment import write_classified
from stages.run import Run
from stages.store.checkpoints import Checkpoint
from stages.store.errors import UserError
from stages.store.specs.assess import Assess


def run(run: Run) -> dict[str, Any]:
    """Judge a dataset by the run's checkpoint."""
    settings, dataset = run.settings(Assess), run.dataset()
    device = set_up_torch(run, deterministic=False)
    folder = run.checkpoint()
    labeller = Labeller(folder, device, precision=settings.precision)
    head = labeller.model.head
    found = survey(dataset)
    have = found.labels.get(head.task, set())
    if not have:
        raise UserError(f"{dataset.name!r} has no record of the task {head.task}, which the model labels.")
    known = head.labels or have
    if unknown := sorted(have - set(known)):
        run.warn(
            f"{len(unknown):,} labels of {dataset.name!r} are none of the model's: {', '.join(map(repr, unknown[:3]))}."
        )
    splits = _splits(settings.split, dataset.info.records.get("val", 0))
    examples = read_examples(dataset, splits, labeller.writer, at_most=settings.max_records)
    checkpoint = Checkpoint(folder, 0)
    name = checkpoint.title()
    said = write_classified(
        run, labeller.model, dataset, splits, examples, name=name, step=checkpoint.trained(), worst=settings.examples
    )
    return {
        "checkpoint": name,
        "accuracy": said.accuracy.value,
        "macro_f1": said.macro_f1,
        "entity_f1": said.entity_f1,
        "records": said.records,
    }


def _splits(asked: str, held_out: int) -> list[str]:
    if asked in ("train", "val"):
        return [asked]
    return ["val"] if asked == "auto" and held_out else ["train", "val"]
