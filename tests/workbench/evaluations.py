"""Evaluations written by hand, as their worker leaves them."""

from __future__ import annotations

from typing import Any

import msgspec

from stages.store.evaluations import FILE, Answer, Evaluation, Row
from stages.store.rundir import Parent, RunDir
from stages.store.statistics import share
from stages.store.workspace import Workspace
from tests.workbench.conftest import CREATED, DATASET_DIGEST, add_run

SKY = "What colour is the sky?"


def add_evaluation(
    workspace: Workspace,
    found: Evaluation | None,
    name: str = "measured",
    status: Any = "finished",
    *,
    parents: dict[str, Parent] | None = None,
    **state: Any,
) -> RunDir:
    """A run of stage evaluate, with what it found. `parents`: the checkpoints it looked at."""
    parents = {"dataset": Parent("world-eval", DATASET_DIGEST), **(parents or {})}
    run = add_run(
        workspace,
        "evaluate",
        name,
        status,
        created=CREATED + 100,
        parents=parents,
        settings={"max_records": 200, "match": "world"},
        **{"step": 200, "total": 200, "unit": "records", **state},
    )
    if found is not None:
        write_evaluation(run, found)
    return run


def write_evaluation(run: RunDir, found: Evaluation) -> None:
    """evaluation.json, replaced as the worker replaces it."""
    fresh = run.path / "fresh.json"
    fresh.write_bytes(msgspec.json.encode(found))
    fresh.replace(run.path / FILE)


def answered(rows: list[Row]) -> Evaluation:
    """An evaluation on prompts."""
    return Evaluation(
        dataset="world-eval", dataset_digest=DATASET_DIGEST, kind="prompts", split="all", records=200, rows=rows
    )


def row(step: int, right: int, *texts: str, run: str = "world-tiny-sft", note: str = "") -> Row:
    """A checkpoint that had `right` of 200 right, with wrong answers to the question about the sky."""
    shares = {"exact": share(right, 200), "exact/facts": share(right // 2, 100), "exact/sums": share(10, 40)}
    answers = [Answer(prompt=SKY, text=text, wanted="blue", right=text == "blue") for text in texts]
    return Row(checkpoint=f"{run}@{step}", step=step, shares=shares, answers=answers, note=note)
