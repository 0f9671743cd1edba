"""What can be set for the report card of a reward model."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from stages.store.specs.base import about
from stages.store.specs.machine import ModelDevice, ModelPrecision, ModelThreads


class Report(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Judge a reward model on ranked completions: accuracy, calibration, length, the worst disagreements."""

    split: Annotated[
        Literal["auto", "train", "val"], about("Part of the dataset. auto: the validation part where there is one.")
    ] = "auto"
    max_prompts: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=100_000_000)] | None,
        about("Prompts that are looked at, the first ones; empty: all.", unit="prompts"),
    ] = None
    examples: Annotated[int, about("Disagreements to read.", ge=0, le=1_000)] = 50
    precision: ModelPrecision = "auto"
    device: ModelDevice = "auto"
    threads: ModelThreads = None
