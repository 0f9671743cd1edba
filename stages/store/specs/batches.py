"""How much a step takes in, for the stages that count it alike: records, or prompts with their ranked completions."""

from __future__ import annotations

from typing import Annotated

import msgspec

from stages.store.specs.base import about

Epochs = Annotated[float, about("Times that every record is seen.", gt=0, le=100_000, group="training")]
RecordsAStep = Annotated[int, about("Records in one step.", unit="records", ge=1, le=1_048_576, group="training")]
RecordsAtOnce = Annotated[
    Annotated[int, msgspec.Meta(ge=1, le=1_048_576)] | None,
    about(
        "Records computed at once, at most; halved until they fit the memory. Empty: all, or of several "
        "processes each its share.",
        unit="records",
        group="training",
    ),
]

RankedContext = Annotated[
    Annotated[int, msgspec.Meta(ge=2, le=1_048_576)] | None,
    about(
        "Longest completion with its prompt; longer ones are left out. Empty: the model's.",
        unit="tokens",
        group="conversations",
    ),
]
RankedAStep = Annotated[
    int,
    about("Prompts in one step, each with all its completions.", unit="prompts", ge=1, le=1_048_576, group="training"),
]
RankedAtOnce = Annotated[
    Annotated[int, msgspec.Meta(ge=1, le=1_048_576)] | None,
    about(
        "Prompts computed at once, at most; halved until they fit the memory. Empty: all, or of several "
        "processes each its share.",
        unit="prompts",
        group="training",
    ),
]
