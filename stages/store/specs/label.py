"""What can be set for having a reward model judge a label set."""

from __future__ import annotations

from typing import Annotated

import msgspec

from stages.store.specs.base import about
from stages.store.specs.machine import ModelDevice, ModelPrecision, ModelThreads


class Label(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Score the completions of a label set with a reward model, for labels in the model's name."""

    label_set: Annotated[str, about("The label set.", min_length=1)]
    judged: Annotated[
        bool, about("Prompts that somebody has judged, too. They show how far the model agrees with people.")
    ] = False
    max_prompts: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=100_000_000)] | None,
        about("Prompts that are scored, the first ones; empty: all.", unit="prompts"),
    ] = None
    precision: ModelPrecision = "auto"
    device: ModelDevice = "auto"
    threads: ModelThreads = None
