"""The preference dataset of a run in tokens, and what of it had to be left out."""

from __future__ import annotations

from pathlib import Path

from stages.data.formatted import refuse_formatted
from stages.data.preference_shards import PreferenceSet, preference_shards
from stages.models.bases import base_folder
from stages.run import Run
from stages.store.errors import UserError


def read_preferences(run: Run, base: Path, template: str, room: int) -> PreferenceSet:
    """The run's dataset in tokens. What was left out is told; UserError when nothing is left to learn from."""

    def tokenizing(done: int, total: int) -> None:
        run.progress(done, total, unit="prompts", phase="tokenizing")

    dataset = run.dataset()
    data = preference_shards(dataset, base_folder(base), template=template, context=room, progress=tokenizing)
    refuse_formatted(dataset)
    refused = sum(split.refused for split in data.info.splits.values())
    dropped = sum(split.dropped for split in data.info.splits.values())
    named = "; ".join(str(each) for each in data.info.refused[:3])
    if len(data.train) == 0:
        raise UserError(f"No prompt of {dataset.name!r} can be learnt from: {named or 'it has none'}.")
    if refused:
        every = sum(dataset.info.records.values())
        run.warn(f"{refused:,} of {every:,} prompts are left out: {named}{' …' if refused > 3 else ''}")
    if dropped:
        run.warn(f"{dropped:,} completions exceed {room:,} tokens with their prompts and are left out.")
    if len(data.val) == 0:
        run.warn(f"{dataset.name!r} has no validation part, so nothing tells how well new answers are judged.")
    return data
