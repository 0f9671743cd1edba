"""What can be set for every stage that fine-tunes a model. A stage adds its own, or says a field again in its words."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec

from stages.store.specs.base import about
from stages.store.specs.machine import Threads
from stages.store.specs.parallel import Gpus, Sharding


class Learning(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Train a model that goes on from a checkpoint."""

    GROUPS: ClassVar[tuple[str, ...]] = ("conversations", "loss", "method", "training", "machine", "watching")
    """The order in which groups of fields are shown."""

    epochs: Annotated[float, about("Times that every record is seen.", gt=0, le=100_000, group="training")] = 1.0
    steps: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=100_000_000)] | None,
        about("Optimiser steps; empty: as the epochs say.", unit="steps", group="training"),
    ] = None
    batch_size: Annotated[int, about("Rows in one step.", unit="rows", ge=1, le=1_048_576, group="training")] = 16
    micro_batch: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=1_048_576)] | None,
        about(
            "Rows computed at once, at most; halved until they fit the memory. Empty: all, or of several "
            "processes each its share.",
            unit="rows",
            group="training",
        ),
    ] = None
    lr: Annotated[
        Annotated[float, msgspec.Meta(gt=0, le=1)] | None,
        about("Peak learning rate of AdamW; empty: as the model's width says.", group="training"),
    ] = None
    min_lr_ratio: Annotated[
        float, about("Learning rate at the end, as a share of the peak.", ge=0, le=1, group="training")
    ] = 0.1
    warmup: Annotated[
        int, about("Steps of linear warm-up; at most a tenth of all.", unit="steps", ge=0, group="training")
    ] = 50
    weight_decay: Annotated[float, about("Decoupled weight decay, on matrices only.", ge=0, le=1, group="training")] = (
        0.1
    )
    beta1: Annotated[float, about("AdamW's decay of the mean gradient.", ge=0, lt=1, group="training")] = 0.9
    beta2: Annotated[float, about("AdamW's decay of the mean square.", ge=0, lt=1, group="training")] = 0.99
    clip: Annotated[float, about("Largest norm of a gradient; 0 turns clipping off.", ge=0, group="training")] = 1.0
    seed: Annotated[int, about("Seed of data order and dropout.", ge=0, le=2**31 - 1, group="training")] = 0

    precision: Annotated[
        Literal["auto", "fp32", "bf16"],
        about(
            "Precision of the arithmetic; master weights are fp32 either way. auto: bf16 where it is faster.",
            group="machine",
        ),
    ] = "auto"
    activation_checkpointing: Annotated[
        bool, about("Compute activations again in the backward pass: less memory, a third more work.", group="machine")
    ] = False
    device: Annotated[
        Literal["auto", "cpu", "cuda"], about("Where to train. auto: a GPU when there is one.", group="machine")
    ] = "auto"
    gpus: Gpus = 1
    sharding: Sharding = "auto"
    threads: Threads = None
    deterministic: Annotated[bool, about("On a GPU, resume bit for bit (slower).", group="machine")] = False

    eval_every: Annotated[int, about("Steps between validations.", unit="steps", ge=1, group="watching")] = 100
    checkpoint_every: Annotated[int, about("Steps between checkpoints.", unit="steps", ge=1, group="watching")] = 250
    log_every: Annotated[
        int, about("Steps between rows of metrics; grows for long runs.", unit="steps", ge=1, group="watching")
    ] = 1


class Tuning(Learning, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Fine-tune a checkpoint on what is said, whole or by adapters."""

    template: Annotated[
        str,
        about(
            "Chat template: auto (the model's own, else chatml), chatml, raw, or a .jinja file.",
            min_length=1,
            group="conversations",
        ),
    ] = "auto"

    method: Annotated[
        Literal["full", "lora"],
        about("full: all weights learn. lora: small matrices beside the frozen ones do.", group="method"),
    ] = "full"
    lora_rank: Annotated[int, about("Rank of the matrices.", ge=1, le=1_024, group="method")] = 16
    lora_alpha: Annotated[float, about("What they add is scaled by alpha / rank.", gt=0, le=65_536, group="method")] = (
        32.0
    )
    lora_dropout: Annotated[
        float, about("Share of their inputs dropped while training.", ge=0, lt=1, group="method")
    ] = 0.0
    lora_targets: Annotated[
        list[str],
        about("Layers they stand beside: attention_in, q_proj, mlp_out …; empty: all of a block.", group="method"),
    ] = []
    lora_keep: Annotated[
        Literal["merged", "adapter"],
        about("merged: checkpoints are whole models. adapter: they hold the matrices alone.", group="method"),
    ] = "merged"


class Answering(Tuning, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Fine-tune a checkpoint that answers: fixed prompts are asked on the way."""

    sample_every: Annotated[
        int, about("Steps between answers to fixed prompts; 0: none.", unit="steps", ge=0, group="watching")
    ] = 250
    sample_prompts: Annotated[
        list[str], about("What the model is asked before, while and after it learns.", group="watching")
    ] = []
    probes: Annotated[bool, about("Ask the twenty probe prompts as well.", group="watching")] = True
    sample_tokens: Annotated[int, about("Longest answer.", unit="tokens", ge=1, le=4_096, group="watching")] = 64
