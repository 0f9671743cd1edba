"""What can be set for pre-training T5."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from stages.store.architecture import Kind
from stages.store.specs.base import about
from stages.store.specs.pretrain import Pretrain


class SpanCorruption(Pretrain, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Pre-train an encoder-decoder on a text dataset: write what hidden spans of a text held."""

    KIND: ClassVar[Kind] = "encoder-decoder"

    preset: Annotated[str, about("Shape of the model; see `workbench models`.", group="model")] = "tiny-t5"
    lr: Annotated[
        Annotated[float, msgspec.Meta(gt=0, le=1)] | None,
        about("Peak learning rate of AdamW; empty: 0.384 / width, which is 3e-3 for tiny-t5.", group="training"),
    ] = None
    hidden_share: Annotated[
        float, about("Share of the tokens that are hidden.", ge=0.01, le=0.95, group="corruption")
    ] = 0.15
    span: Annotated[
        float, about("Tokens in a hidden span, on average.", unit="tokens", ge=1, le=100, group="corruption")
    ] = 3.0
    sample_prompts: Annotated[
        list[str],
        about("Texts with ___ that the model fills as it learns; empty: from validation.", group="watching"),
    ] = []
