"""Models that are too large or of another architecture to be trained here: shapes to plan with, by arithmetic alone.

A planned model is a ModelConfig, or a Mixture: latent attention and experts as DeepSeek-V3 has them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import tomli
from msgspec import Meta

import assets
from stages.store.architecture import ModelConfig
from stages.store.errors import UserError
from stages.store.names import nearest
from stages.store.sizes import BYTES, InferenceMemory, TrainingMemory

FOLDER = Path(assets.__file__).parent / "planned"

Count = Annotated[int, Meta(ge=1)]


class Mixture(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A decoder with multi-head latent attention and a mixture of experts (DeepSeek-V3, arXiv 2412.19437, section 2.1).

    Queries are made from a vector of `query_rank`, keys and values from one of `key_value_rank`, which is all that is
    cached beside a key of `rotary_width` that the heads share. Feed-forward layers are gated; behind the first
    `dense_layers` they are experts, of which a router picks `experts_per_token`, and shared ones that always work.
    """

    layers: Count
    dense_layers: Annotated[int, Meta(ge=0)]
    width: Count
    heads: Count
    query_rank: Count
    key_value_rank: Count
    plain_width: Count
    """Width of the part of a head's queries and keys that has no position."""
    rotary_width: Count
    value_width: Count
    dense_width: Count
    expert_width: Count
    experts: Count
    shared_experts: Annotated[int, Meta(ge=0)]
    experts_per_token: Count
    context: Count
    vocab_size: Count

    @property
    def family(self) -> str:
        """What stands for the architecture in a table."""
        return "deepseek"

    @property
    def key_width(self) -> int:
        """Width of a head's queries and keys."""
        return self.plain_width + self.rotary_width


class MixtureCount(msgspec.Struct, frozen=True):
    """Parameters by part, all layers together."""

    tokens: int
    attention: int
    feed_forward: int
    """Dense layers, routers with the bias that balances them, and all experts."""
    norms: int
    head: int
    idle: int
    """Of the experts: parameters that a token does not meet."""

    @property
    def total(self) -> int:
        """All parameters, idle experts among them."""
        return self.tokens + self.attention + self.feed_forward + self.norms + self.head

    @property
    def active(self) -> int:
        """Parameters that one token meets."""
        return self.total - self.idle

    @property
    def in_products(self) -> int:
        """Those of a matrix product for every token: without the embedding, which is looked up."""
        return self.active - self.tokens - self.norms


class Planned(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of assets/planned."""

    title: str
    about: str
    source: str
    tokens: float
    """How many tokens it was trained on, as published."""
    model: ModelConfig | None = None
    mixture: Mixture | None = None

    @property
    def shape(self) -> ModelConfig | Mixture:
        """The one of the two that the file gives."""
        found = self.model or self.mixture
        assert found is not None, f"{self.title} has no shape"
        return found


def list_planned() -> list[str]:
    """Names of the models there are only plans of."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read_planned(name: str) -> Planned:
    """The planned model of that name; UserError naming the nearest."""
    names = list_planned()
    if name not in names:
        raise UserError(f"There is no planned model {name!r}.", nearest(name, names))
    return msgspec.convert(tomli.loads((FOLDER / f"{name}.toml").read_text("utf-8")), Planned)


def mixture_count(shape: Mixture) -> MixtureCount:
    """The exact number of parameters of each part, as the released weights have them (the extra layer that predicts
    a second token is left out, as in the published 671 billion)."""
    C, L, H = shape.width, shape.layers, shape.heads
    attention = (
        C * shape.query_rank
        + shape.query_rank * H * shape.key_width
        + C * (shape.key_value_rank + shape.rotary_width)
        + shape.key_value_rank * H * (shape.plain_width + shape.value_width)
        + H * shape.value_width * C
    )
    expert, sparse = 3 * C * shape.expert_width, L - shape.dense_layers
    router = shape.experts * (C + 1)
    return MixtureCount(
        tokens=shape.vocab_size * C,
        attention=L * attention,
        feed_forward=shape.dense_layers * 3 * C * shape.dense_width
        + sparse * (router + (shape.experts + shape.shared_experts) * expert),
        norms=L * (2 * C + shape.query_rank + shape.key_value_rank) + C,
        head=shape.vocab_size * C,
        idle=sparse * (shape.experts - shape.experts_per_token) * expert,
    )


def mixture_flops_per_token(shape: Mixture, context: int | None = None) -> int:
    """Floating-point operations to train on one token: 6 for each active parameter, and those of attention.

    As `sizes.flops_per_token`, with the two products of attention of different widths: 6 L H T (key + value width).
    """
    T = min(context or shape.context, shape.context)
    attention = 6 * shape.layers * shape.heads * T * (shape.key_width + shape.value_width)
    return 6 * mixture_count(shape).in_products + attention


def mixture_training_memory(
    shape: Mixture, micro_batch: int, *, context: int | None = None, dtype: str = "bf16"
) -> TrainingMemory:
    """The estimated peak of a training step with AdamW, in bytes, on one device: as `sizes.training_memory`.

    Activations: per token and layer norms' inputs and outputs, the latent vectors, queries, keys, values and the
    attention's output of each head, and each feed-forward layer or expert at work before and after its non-linearity.
    """
    tokens, size = micro_batch * min(context or shape.context, shape.context), BYTES[dtype]
    working = shape.experts_per_token + shape.shared_experts
    sparse = shape.layers - shape.dense_layers
    in_attention = (
        4 * shape.width
        + 2 * (shape.query_rank + shape.key_value_rank)
        + shape.rotary_width
        + shape.heads * 2 * (shape.key_width + shape.value_width)
    )
    kept = shape.layers * in_attention + 4 * (
        sparse * working * shape.expert_width + shape.dense_layers * shape.dense_width
    )
    total = mixture_count(shape).total
    return TrainingMemory(
        weights=total * size,
        gradients=total * (size + BYTES["fp32"]),
        optimiser=total * (2 * BYTES["fp32"] + (BYTES["fp32"] if dtype == "bf16" else 0)),
        activations=tokens * (kept * size + 2 * shape.width * size),
    )


def mixture_inference_memory(
    shape: Mixture, sequences: int = 1, *, context: int | None = None, dtype: str = "bf16"
) -> InferenceMemory:
    """Bytes of the weights, and of the cache: the latent vector and the shared key of each token and layer."""
    T, size = min(context or shape.context, shape.context), BYTES[dtype]
    cache = shape.layers * (shape.key_value_rank + shape.rotary_width) * T * sequences * size
    return InferenceMemory(weights=mixture_count(shape).total * size, cache=cache)
