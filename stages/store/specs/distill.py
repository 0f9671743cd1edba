"""What can be set for distillation."""

from __future__ import annotations

from typing import Annotated

import msgspec

from stages.store.specs.base import about
from stages.store.specs.sft import SFT


class Distill(SFT, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Teach a checkpoint to predict what a larger one, its teacher, predicts: on conversations or on text."""

    context: Annotated[
        Annotated[int, msgspec.Meta(ge=2, le=1_048_576)] | None,
        about(
            "Longest conversation, length of a packed row and of a block of text. Empty: the student's.",
            unit="tokens",
            group="conversations",
        ),
    ] = None

    alpha: Annotated[
        float,
        about(
            "Share of the teacher in the loss: 0 learns from the data alone, 1 from the teacher alone.",
            ge=0,
            le=1,
            group="loss",
        ),
    ] = 0.5
    temperature: Annotated[
        float,
        about(
            "What both models' logits are divided by: above 1, less likely tokens count more.",
            gt=0,
            le=1_000,
            group="loss",
        ),
    ] = 2.0
    epochs: Annotated[float, about("Times that every record is seen.", gt=0, le=100_000, group="training")] = 3.0
