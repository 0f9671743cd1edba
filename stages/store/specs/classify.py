"""What can be set for teaching a checkpoint to label texts."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec

from stages.store.specs.base import about
from stages.store.specs.batches import Epochs, RecordsAStep, RecordsAtOnce
from stages.store.specs.tuning import Learning


class Classify(Learning, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Teach a decoder or an encoder to label texts: classes, pairs, multiple choice, or a label for each word."""

    GROUPS: ClassVar[tuple[str, ...]] = ("task", "loss", "training", "machine", "watching")

    task: Annotated[
        Literal["auto", "classify", "pair", "choice", "tokens"],
        about(
            "Which records are learnt. classify: a text and its class. pair: two texts. choice: a question and its "
            "options. tokens: words with a label each. auto: those the dataset has, when it has one sort.",
            group="task",
        ),
    ] = "auto"
    both_orders: Annotated[
        bool,
        about("Read a pair in both orders and sum what is found, for likeness, which has no order.", group="task"),
    ] = False
    scratch: Annotated[
        bool, about("Begin with random weights of the checkpoint's shape, for comparison.", group="task")
    ] = False
    context: Annotated[
        Annotated[int, msgspec.Meta(ge=8, le=1_048_576)] | None,
        about("Longest input; longer texts are cut at their end. Empty: the model's.", unit="tokens", group="task"),
    ] = None

    lm_weight: Annotated[
        float,
        about(
            "Weight of the loss of predicting each next token, beside that of the labels; 0: none. Decoders only.",
            ge=0,
            le=10,
            group="loss",
        ),
    ] = 0.5

    epochs: Epochs = 3.0
    batch_size: RecordsAStep = 32
    micro_batch: RecordsAtOnce = None
    lr: Annotated[
        Annotated[float, msgspec.Meta(gt=0, le=1)] | None,
        about("Peak learning rate of AdamW; empty: 0.064 / width, which is 5e-4 for tiny.", group="training"),
    ] = None
    dropout: Annotated[float, about("Share of activations dropped while training.", ge=0, lt=1, group="training")] = 0.1

    eval_records: Annotated[
        int, about("Records in a validation; the last one uses them all.", unit="records", ge=1, group="watching")
    ] = 1_000
    examples: Annotated[int, about("Worst examples in the report at the end.", ge=0, le=1_000, group="watching")] = 50
