"""What can be set for sampling completions to judge."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from stages.store.specs.base import about
from stages.store.specs.machine import Device, Precision


class Sample(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Write several completions to each prompt of a dataset, or to prompts that are typed, to be judged."""

    k: Annotated[
        int, about("Completions of each prompt, taken from the checkpoints in turn.", ge=1, le=9, group="completions")
    ] = 4
    prompts: Annotated[
        list[str], about("Typed prompts, in the place of a dataset: what a user says, one each.", group="completions")
    ] = []
    judged_by: Annotated[
        Literal["auto", "rank", "pair", "rate"],
        about("How the label set is judged. auto: two completions as a pair, more by rank.", group="completions"),
    ] = "auto"
    part: Annotated[
        Literal["any", "sft", "reward", "policy", "eval"],
        about("Only prompts of this part of the set.", group="completions"),
    ] = "any"
    max_prompts: Annotated[
        Annotated[int, msgspec.Meta(ge=1)] | None,
        about("Prompts at most, drawn by the seed; empty: all.", unit="prompts", group="completions"),
    ] = None
    temperature: Annotated[float, about("0 takes the likeliest token.", ge=0, le=10, group="completions")] = 1.0
    top_k: Annotated[
        Annotated[int, msgspec.Meta(ge=1)] | None,
        about("Draw from so many of the likeliest tokens; empty: all.", unit="tokens", group="completions"),
    ] = None
    top_p: Annotated[
        float,
        about("Draw from the likeliest tokens that together have this probability.", gt=0, le=1, group="completions"),
    ] = 1.0
    max_new_tokens: Annotated[
        int,
        about(
            "Longest completion; half of what the model sees at most. A longer prompt than the rest of it is left out.",
            unit="tokens",
            ge=1,
            le=65_536,
            group="completions",
        ),
    ] = 128
    template: Annotated[
        str,
        about("Chat template: auto (the model's own, else raw), or as for sft.", min_length=1, group="completions"),
    ] = "auto"
    seed: Annotated[int, about("Seed of all that is drawn.", ge=0, le=2**31 - 1, group="completions")] = 0
    slots: Annotated[int, about("Completions written at once.", ge=1, le=1_024, group="machine")] = 32
    device: Device = "auto"
    precision: Precision = "auto"
