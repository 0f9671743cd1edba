"""Scores of a reward model for whoever asks: a verb of the desk, which keeps the model that was asked for last."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import msgspec

from stages.desk import Job
from stages.measuring.scorer import Scorer
from stages.store.checkpoints import MANIFEST
from stages.store.errors import UserError
from stages.store.records import Message

_using = threading.Lock()
_kept: dict[tuple[Path, int], Scorer] = {}


class Answer(msgspec.Struct, frozen=True):
    """A conversation up to where the assistant speaks, and what it says."""

    messages: list[Message]
    completion: str


def of(job: Job, *, folder: str, answers: list[Any]) -> list[dict[str, Any]]:
    """For each answer {raw, normal, why}: its score by the reward model in `folder`, or why it has none.

    Raises UserError for a folder without a reward model, and for what is no answer.
    """
    try:
        wanted = msgspec.convert(answers, list[Answer])
    except msgspec.ValidationError as error:
        raise UserError(f"An answer cannot be read: {error}.") from error
    with _using:
        scorer = _scorer(Path(folder))
        job.check()
        found = scorer.score_all([(one.messages, one.completion) for one in wanted])
    return [
        {"raw": None, "normal": None, "why": one.title} if isinstance(one, UserError) else {**one._asdict(), "why": ""}
        for one in found
    ]


def _scorer(folder: Path) -> Scorer:
    manifest = folder / MANIFEST
    key = (folder, manifest.stat().st_mtime_ns if manifest.is_file() else 0)
    if key not in _kept:
        for old in _kept.values():
            old.close()
        _kept.clear()
        _kept[key] = Scorer(folder)
    return _kept[key]
