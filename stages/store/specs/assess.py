"""What can be set for judging a model that labels texts."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from stages.store.specs.base import about
from stages.store.specs.machine import ModelDevice, ModelPrecision, ModelThreads


class Assess(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Judge a model that labels texts on labelled records: accuracy, F1, confusion matrix, the worst examples."""

    split: Annotated[
        Literal["auto", "train", "val", "all"],
        about("Part of the dataset. auto: the validation part where there is one, else all."),
    ] = "auto"
    max_records: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=100_000_000)] | None,
        about("Records that are looked at, the first ones; empty: all.", unit="records"),
    ] = None
    examples: Annotated[int, about("Worst examples to read.", ge=0, le=1_000)] = 50
    precision: ModelPrecision = "auto"
    device: ModelDevice = "auto"
    threads: ModelThreads = None
