"""What can be set for text-to-text fine-tuning."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from stages.store.specs.base import about
from stages.store.specs.batches import Epochs, RecordsAStep, RecordsAtOnce
from stages.store.specs.tuning import Learning


class Seq2Seq(Learning, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Teach a T5 to write the answer to a text: a label, a choice, or what the assistant says."""

    GROUPS: ClassVar[tuple[str, ...]] = ("texts", "training", "machine", "watching")

    prefix: Annotated[
        str | None,
        about(
            "What stands before every text, and tells tasks apart. Empty: the dataset's name for labelled data, as in "
            "`banking77: …`, and nothing for conversations.",
            group="texts",
        ),
    ] = None
    context: Annotated[
        Annotated[int, msgspec.Meta(ge=2, le=1_048_576)] | None,
        about("Longest text that is read; longer ones are cut. Empty: the model's.", unit="tokens", group="texts"),
    ] = None
    answer_tokens: Annotated[
        int, about("Longest answer; records with longer ones are left out.", unit="tokens", ge=1, group="texts")
    ] = 128

    epochs: Epochs = 3.0
    batch_size: RecordsAStep = 32
    micro_batch: RecordsAtOnce = None
    lr: Annotated[
        Annotated[float, msgspec.Meta(gt=0, le=1)] | None,
        about("Peak learning rate of AdamW; empty: 0.128 / width, which is 1e-3 for tiny-t5.", group="training"),
    ] = None
    dropout: Annotated[float, about("Share of activations dropped while training.", ge=0, lt=1, group="training")] = 0.1

    eval_records: Annotated[
        int, about("Records in a validation; the last one uses them all.", unit="records", ge=1, group="watching")
    ] = 500
    sample_every: Annotated[
        int, about("Steps between answers to fixed texts; 0: none.", unit="steps", ge=0, group="watching")
    ] = 250
    sample_prompts: Annotated[
        list[str], about("Texts that are answered as it learns; empty: from validation.", group="watching")
    ] = []
