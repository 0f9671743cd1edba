"""What can be set for instruction tuning."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from stages.store.specs.base import about
from stages.store.specs.tuning import Answering


class SFT(Answering, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Fine-tune a checkpoint on conversations: learn what the assistant says."""

    turns: Annotated[
        Literal["all", "last"],
        about("Which of the assistant's turns are learnt. A message's own `train` comes first.", group="conversations"),
    ] = "all"
    packing: Annotated[
        bool,
        about("Put several conversations in a row; none sees another. Else one a row, padded.", group="conversations"),
    ] = True
    context: Annotated[
        Annotated[int, msgspec.Meta(ge=2, le=1_048_576)] | None,
        about(
            "Longest conversation, and length of a packed row; longer ones are cut behind a turn. Empty: the model's.",
            unit="tokens",
            group="conversations",
        ),
    ] = None

    epochs: Annotated[float, about("Times that every conversation is seen.", gt=0, le=100_000, group="training")] = 3.0
    lr: Annotated[
        Annotated[float, msgspec.Meta(gt=0, le=1)] | None,
        about(
            "Peak learning rate of AdamW; empty: 0.128 / width, which is 1e-3 for tiny, and four times that for lora.",
            group="training",
        ),
    ] = None
    dropout: Annotated[float, about("Share of activations dropped while training.", ge=0, lt=1, group="training")] = 0.0
    eval_tokens: Annotated[
        int, about("Tokens in a validation; the last one uses them all.", unit="tokens", ge=1, group="watching")
    ] = 65_536
