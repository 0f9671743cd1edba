"""What happened, as messages between parts of the app: past-tense facts, posted by the one who knows."""

from __future__ import annotations

from dataclasses import dataclass

from textual.message import Message


@dataclass
class CheckpointChosen(Message):
    """Someone asked to chat with `checkpoint` (a run's name, `run@step`, a model, a folder) while Chat was open."""

    checkpoint: str
