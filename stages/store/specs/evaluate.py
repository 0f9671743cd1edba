"""What can be set for evaluation."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from stages.store.specs.base import about
from stages.store.specs.machine import BatchTokens, Device, Precision, Slots


class Evaluate(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Measure checkpoints on a dataset, side by side."""

    split: Annotated[
        Literal["auto", "val", "train", "all"],
        about("Part of the dataset; auto: the validation part, or all when it is empty.", group="data"),
    ] = "auto"
    max_records: Annotated[
        Annotated[int, msgspec.Meta(ge=1)] | None,
        about("Records that are looked at, drawn by the seed; empty: all.", unit="records", group="data"),
    ] = 1_000
    match: Annotated[
        Literal["auto", "exact", "contains", "number", "world"],
        about(
            "When an answer is right. exact: the same but for case, spaces and closing punctuation; contains: the "
            "answer stands in it; number: its last number is the answer's; world: the starter world's rule; auto: "
            "by record.",
            group="answers",
        ),
    ] = "auto"
    max_new_tokens: Annotated[
        int,
        about(
            "Longest answer, half of what the model sees at most; each token is the likeliest.",
            unit="tokens",
            ge=1,
            le=65_536,
            group="answers",
        ),
    ] = 64
    template: Annotated[
        str,
        about(
            "Chat template for prompts: auto (the model's own, else raw), or as for sft.", min_length=1, group="answers"
        ),
    ] = "auto"
    examples: Annotated[
        int,
        about(
            "Answers that are kept to be read, the wrong ones first.", unit="answers", ge=0, le=1_000, group="answers"
        ),
    ] = 20
    probes: Annotated[bool, about("Answer the 20 probe prompts as well, to be read.", group="answers")] = False
    seed: Annotated[int, about("Seed of the draw of records.", ge=0, le=2**31 - 1, group="data")] = 0
    batch_tokens: BatchTokens = 8_192
    slots: Slots = 32
    device: Device = "auto"
    precision: Precision = "auto"
