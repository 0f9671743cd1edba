"""What can be set for training a reward model."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from stages.store.specs.base import about
from stages.store.specs.batches import RankedAStep, RankedAtOnce, RankedContext
from stages.store.specs.tuning import Tuning


class Reward(Tuning, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Train a reward model: a checkpoint with a scalar head learns which of two completions people prefer."""

    context: RankedContext = None

    ties: Annotated[
        Literal["half", "skip"],
        about(
            "Completions of equal rank. half: each is preferred half of the time, which draws their scores together. "
            "skip: they are left out.",
            group="loss",
        ),
    ] = "half"
    margin: Annotated[
        Literal["none", "ranks", "scores"],
        about(
            "By how much the better score must be higher: nothing, the distance of ranks, or that of annotators' "
            "scores, times margin_scale.",
            group="loss",
        ),
    ] = "none"
    margin_scale: Annotated[
        float, about("Of a margin, in log-odds for each rank or point of score.", gt=0, le=100, group="loss")
    ] = 0.3
    centring: Annotated[
        float,
        about("Weight of the squared sum of a pair's scores, which keeps scores near 0.", ge=0, le=10, group="loss"),
    ] = 0.0

    batch_size: RankedAStep = 16
    micro_batch: RankedAtOnce = None
    lr: Annotated[
        Annotated[float, msgspec.Meta(gt=0, le=1)] | None,
        about(
            "Peak learning rate of AdamW; empty: 0.064 / width, which is 5e-4 for tiny, and four times that for lora.",
            group="training",
        ),
    ] = None
    eval_prompts: Annotated[
        int,
        about(
            "Prompts in a validation, and those that scores are normalised on; the last one uses them all.",
            unit="prompts",
            ge=2,
            group="watching",
        ),
    ] = 256
