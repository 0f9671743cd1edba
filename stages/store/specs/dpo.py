"""What can be set for direct preference optimisation."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from stages.store.specs.base import about
from stages.store.specs.batches import RankedAStep, RankedAtOnce, RankedContext
from stages.store.specs.tuning import Answering


class DPO(Answering, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Improve a checkpoint on ranked completions directly, without a reward model (DPO)."""

    context: RankedContext = None

    beta: Annotated[
        float,
        about("Strength of the leash: the higher, the nearer to the reference.", gt=0, le=1_000, group="loss"),
    ] = 0.1
    loss: Annotated[
        Literal["sigmoid", "robust", "ipo"],
        about(
            "sigmoid: DPO. robust: the same, unbiased where label_smoothing of the labels are wrong. "
            "ipo: a squared loss that stops at a margin of 1 / (2 beta).",
            group="loss",
        ),
    ] = "sigmoid"
    label_smoothing: Annotated[
        float, about("Share of the pairs whose labels are taken to be wrong.", ge=0, lt=0.5, group="loss")
    ] = 0.0
    length_normalised: Annotated[
        bool, about("Compare log-probabilities a token, so that length does not pay.", group="loss")
    ] = False
    sft_term: Annotated[
        float, about("Weight of the chosen completions' own loss a token, added.", ge=0, le=100, group="loss")
    ] = 0.0
    pairs: Annotated[
        Literal["all", "best_worst"],
        about("all: every two completions of a prompt that differ in rank. best_worst: the ends alone.", group="loss"),
    ] = "all"

    batch_size: RankedAStep = 16
    micro_batch: RankedAtOnce = None
    lr: Annotated[
        Annotated[float, msgspec.Meta(gt=0, le=1)] | None,
        about(
            "Peak learning rate of AdamW; empty: 0.0128 / width, which is 1e-4 for tiny, and four times that for lora.",
            group="training",
        ),
    ] = None
    weight_decay: Annotated[float, about("Decoupled weight decay, on matrices only.", ge=0, le=1, group="training")] = (
        0.0
    )
    eval_prompts: Annotated[
        int, about("Prompts in a validation; the last one uses them all.", unit="prompts", ge=1, group="watching")
    ] = 256
