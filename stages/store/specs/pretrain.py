"""What can be set for pre-training."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec

from stages.store.architecture import Kind
from stages.store.specs.base import about
from stages.store.specs.machine import Threads
from stages.store.specs.parallel import Gpus, Sharding


class Pretrain(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Pre-train a decoder on a text dataset: predict each next token."""

    KIND: ClassVar[Kind] = "decoder"
    """What the stage trains."""

    preset: Annotated[str, about("Shape of the model; see `workbench models`.", group="model")] = "tiny"
    layers: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=512)] | None,
        about("Transformer blocks; empty: as the preset says.", group="model"),
    ] = None
    heads: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=512)] | None,
        about("Attention heads; the width must be a multiple of them.", group="model"),
    ] = None
    width: Annotated[
        Annotated[int, msgspec.Meta(ge=8, le=65_536)] | None,
        about("Size of the residual stream.", group="model"),
    ] = None
    context: Annotated[
        Annotated[int, msgspec.Meta(ge=2, le=1_048_576)] | None,
        about("Longest sequence the model sees.", unit="tokens", group="model"),
    ] = None
    dropout: Annotated[float, about("Share of activations dropped while training.", ge=0, lt=1, group="model")] = 0.0

    steps: Annotated[int, about("Optimiser steps.", unit="steps", ge=1, le=100_000_000, group="training")] = 2_000
    batch_size: Annotated[
        int, about("Sequences in one step.", unit="sequences", ge=1, le=1_048_576, group="training")
    ] = 16
    micro_batch: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=1_048_576)] | None,
        about(
            "Sequences computed at once, at most; halved until they fit the memory. Empty: all, or of several "
            "processes each its share.",
            unit="sequences",
            group="training",
        ),
    ] = None
    lr: Annotated[
        Annotated[float, msgspec.Meta(gt=0, le=1)] | None,
        about("Peak learning rate of AdamW; empty: 0.384 / width, which is 3e-3 for tiny.", group="training"),
    ] = None
    min_lr_ratio: Annotated[
        float, about("Learning rate at the end, as a share of the peak.", ge=0, le=1, group="training")
    ] = 0.1
    warmup: Annotated[
        int, about("Steps of linear warm-up before the cosine.", unit="steps", ge=0, group="training")
    ] = 100
    weight_decay: Annotated[float, about("Decoupled weight decay, on matrices only.", ge=0, le=1, group="training")] = (
        0.1
    )
    beta1: Annotated[float, about("AdamW's decay of the mean gradient.", ge=0, lt=1, group="training")] = 0.9
    beta2: Annotated[float, about("AdamW's decay of the mean square.", ge=0, lt=1, group="training")] = 0.99
    clip: Annotated[float, about("Largest norm of a gradient; 0 turns clipping off.", ge=0, group="training")] = 1.0
    z_loss: Annotated[
        float,
        about(
            "Weight of log² Z in each token's loss, Z the softmax's denominator: keeps logits from drifting (PaLM has "
            "1e-4). Validation is without it.",
            ge=0,
            le=1,
            group="training",
        ),
    ] = 0.0
    seed: Annotated[int, about("Seed of weights, data order and dropout.", ge=0, le=2**31 - 1, group="training")] = 0

    precision: Annotated[
        Literal["auto", "fp32", "bf16"],
        about(
            "Precision of the arithmetic; master weights are fp32 either way. auto: bf16 where it is faster.",
            group="machine",
        ),
    ] = "auto"
    device: Annotated[
        Literal["auto", "cpu", "cuda"], about("Where to train. auto: a GPU when there is one.", group="machine")
    ] = "auto"
    gpus: Gpus = 1
    sharding: Sharding = "auto"
    threads: Threads = None
    deterministic: Annotated[bool, about("On a GPU, resume bit for bit (slower).", group="machine")] = False

    eval_every: Annotated[int, about("Steps between validations.", unit="steps", ge=1, group="watching")] = 250
    eval_tokens: Annotated[
        int, about("Tokens in a validation; the last one uses them all.", unit="tokens", ge=1, group="watching")
    ] = 65_536
    checkpoint_every: Annotated[int, about("Steps between checkpoints.", unit="steps", ge=1, group="watching")] = 500
    log_every: Annotated[
        int, about("Steps between rows of metrics; grows for long runs.", unit="steps", ge=1, group="watching")
    ] = 1
    sample_every: Annotated[int, about("Steps between samples; 0: none.", unit="steps", ge=0, group="watching")] = 250
    sample_prompts: Annotated[
        list[str],
        about("Texts that the model continues as it learns; empty: the start of validation.", group="watching"),
    ] = []
    sample_tokens: Annotated[int, about("Length of a sample.", unit="tokens", ge=1, le=4_096, group="watching")] = 64

    @property
    def sequences_at_once(self) -> int:
        """The micro-batch that is asked for."""
        return min(self.micro_batch or self.batch_size, self.batch_size)
