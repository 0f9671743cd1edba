"""A reward model's scores of answers that a person has just ordered: asked of the desk, and told beside that order.

judge@8 ordered them 2 > 1 > 3 · against you in 1 of 3 pairs: 2 > 1 · scores 0.31, 0.87, -1.20
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from stages.store.checkpoints import list_checkpoints, resolve_checkpoint
from stages.store.errors import UserError
from stages.store.labels import Prompt
from stages.store.models import list_models
from stages.store.rundir import list_runs
from stages.store.workspace import Workspace
from workbench.judging.model_orders import ModelOrder, in_words
from workbench.talking.desk_client import DeskClient

NONE = "none"
"""The setting by which no reward model is asked."""


class Judge(NamedTuple):
    """A reward model that can be asked."""

    name: str
    folder: Path


def judge_of(workspace: Workspace, wanted: str) -> Judge | None:
    """The reward model of this name; where none is named, the newest run's, else an imported one. Reads files.

    None where there is none, or none is wanted. UserError for a name that nothing has.
    """
    if wanted == NONE:
        return None
    name = wanted or _newest(workspace)
    if not name:
        return None
    checkpoint = resolve_checkpoint(workspace, name)
    return Judge(checkpoint.title(), checkpoint.path)


async def told(desk: DeskClient, judge: Judge, prompt: Prompt, texts: Sequence[str], ranks: list[int]) -> str:
    """How it orders these answers, which the person gave these ranks, and its normalised scores; or why it does not.

    Raises UserError with what the desk says.
    """
    messages = msgspec.to_builtins(prompt.messages)
    answers = [{"messages": messages, "completion": text} for text in texts]
    found: list[dict[str, Any]] = await desk.ask("reward.score", folder=str(judge.folder), answers=answers)
    scores = {number: one["normal"] for number, one in enumerate(found) if one["normal"] is not None}
    if len(scores) < 2:
        return f"{judge.name} cannot score them: {next((one['why'] for one in found if one['why']), 'no answer')}"
    said = ", ".join(f"{scores[number]:.2f}" if number in scores else "–" for number in range(len(texts)))
    return f"{in_words(ModelOrder(judge.name, scores), ranks)} · scores {said}"


def _newest(workspace: Workspace) -> str:
    for run in list_runs(workspace):
        try:
            if run.spec().stage == "reward" and list_checkpoints(run):
                return run.id
        except UserError:  # the list of runs tells of damage
            continue
    return next((model.name for model in list_models(workspace) if model.info.head == "reward"), "")
