"""What can be set for pre-training BERT."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec

from stages.store.architecture import Kind
from stages.store.specs.base import about
from stages.store.specs.pretrain import Pretrain


class Bert(Pretrain, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Pre-train an encoder on a text dataset: say what stands behind the masks."""

    KIND: ClassVar[Kind] = "encoder"

    preset: Annotated[str, about("Shape of the model; see `workbench models`.", group="model")] = "tiny-bert"
    lr: Annotated[
        Annotated[float, msgspec.Meta(gt=0, le=1)] | None,
        about("Peak learning rate of AdamW; empty: 0.128 / width, which is 1e-3 for tiny-bert.", group="training"),
    ] = None
    mask_share: Annotated[
        float, about("Share of the tokens that are asked about. Crammed BERT asks 0.25.", gt=0, lt=1, group="masking")
    ] = 0.15
    masks: Annotated[
        Literal["bert", "all"],
        about(
            "bert: of those asked about, 80 % are masked, 10 % replaced at random, 10 % left. all: every one masked.",
            group="masking",
        ),
    ] = "bert"
    whole_words: Annotated[
        bool, about("Ask about all pieces of a word or none, where pieces are told apart.", group="masking")
    ] = False
    sample_prompts: Annotated[
        list[str],
        about("Texts with [MASK] that the model fills as it learns; empty: from validation.", group="watching"),
    ] = []
