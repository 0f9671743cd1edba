"""What can be set for pre-training Transformer-XL."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from stages.store.architecture import Kind
from stages.store.specs.base import about
from stages.store.specs.pretrain import Pretrain


class Recurrent(Pretrain, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Pre-train a Transformer-XL on a text dataset: predict each next token, segments before it remembered."""

    KIND: ClassVar[Kind] = "recurrent decoder"

    preset: Annotated[str, about("Shape of the model; see `workbench models`.", group="model")] = "tiny-transformer-xl"
    context: Annotated[
        Annotated[int, msgspec.Meta(ge=2, le=1_048_576)] | None,
        about("Length of a segment.", unit="tokens", group="model"),
    ] = None
    memory: Annotated[
        Annotated[int, msgspec.Meta(ge=0, le=1_048_576)] | None,
        about(
            "Tokens before a segment that are remembered; 0: none. Empty: as the preset says.",
            unit="tokens",
            group="model",
        ),
    ] = None
    lr: Annotated[
        Annotated[float, msgspec.Meta(gt=0, le=1)] | None,
        about(
            "Peak learning rate of AdamW; empty: 0.128 / width, which is 1e-3 for tiny-transformer-xl.",
            group="training",
        ),
    ] = None
