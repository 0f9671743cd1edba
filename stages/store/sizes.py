"""How many parameters, bytes and floating-point operations a model costs, by arithmetic alone.

N parameters, C width, F feed-forward width, L layers, T tokens in view, V vocabulary, H query heads, G key heads, D
width of a head.
"""

from __future__ import annotations

from typing import NamedTuple

from stages.store.architecture import ENCODERS, ModelConfig

LOGITS_AT_ONCE = 2**24
"""How many logits the loss holds at a time (`kernels.linear_cross_entropy`)."""
BYTES = {"fp32": 4, "bf16": 2}


class ParameterCount(NamedTuple):
    """Parameters by part; `total` counts a tied output layer once."""

    tokens: int
    positions: int
    attention: int
    feed_forward: int
    norms: int
    head: int

    @property
    def total(self) -> int:
        """All parameters."""
        return sum(self)

    @property
    def in_products(self) -> int:
        """Those that take part in a matrix product for every token: the layers, and the output layer once."""
        return self.attention + self.feed_forward + max(self.head, self.tokens)


class TrainingMemory(NamedTuple):
    """Bytes that a training step holds at its peak, by part. An estimate: allocators add to it."""

    weights: int
    gradients: int
    optimiser: int
    activations: int

    @property
    def total(self) -> int:
        """Bytes of all parts."""
        return sum(self)


class InferenceMemory(NamedTuple):
    """Bytes of weights and of the KV cache."""

    weights: int
    cache: int

    @property
    def total(self) -> int:
        """Bytes of all parts."""
        return sum(self)


def parameter_count(config: ModelConfig) -> ParameterCount:
    """The exact number of parameters of each part, all layers together; of BERT, as it is pre-trained.

    BERT's head is a layer with its norm before the tied embedding, and a bias for each token. T5's decoder attends to
    itself and to what the encoder has read, and each of its two stacks has a bias for every bucket and head.
    Transformer-XL has two vectors a head beside the keys of distances.
    """
    C, inner, L, D = config.width, config.inner_width, config.layers, config.head_width
    query, fused = config.heads * D, (config.heads + 2 * config.key_heads) * D
    bias, halves = config.biases, 2 if config.gated else 1
    encoder, writing = config.family in ENCODERS, config.writing_layers
    norms = 2 * L + (1 if config.norm == "pre" or encoder else 0) + (3 * writing + 1 if writing else 0)
    head = C * C + 3 * C + config.vocab_size if encoder else 0
    norm = C * (1 + (config.bias and config.norm_kind == "layer"))
    if config.positions == "sinusoidal":  # keys of distances
        fused += query
    return ParameterCount(
        tokens=config.vocab_size * C,
        positions=_positions(config),
        attention=(L + 2 * writing) * (C * fused + query * C + bias.qkv * fused + bias.out * C),
        feed_forward=(L + writing) * ((halves + 1) * C * inner + bias.mlp * (halves * inner + C)),
        norms=norms * norm + 2 * L * D * config.qk_norm,
        head=head if config.tied else config.vocab_size * C,
    )


def _positions(config: ModelConfig) -> int:
    if config.positions == "relative":
        return 2 * config.buckets * config.heads
    if config.positions == "sinusoidal":
        return 2 * config.heads * config.head_width
    return (config.context + config.types) * config.width if config.positions == "learned" else 0


def _attentions(config: ModelConfig) -> int:
    """Attention layers: a decoder that reads an encoder has two in each block."""
    return config.layers + 2 * config.writing_layers


def training_memory(
    config: ModelConfig,
    micro_batch: int,
    *,
    context: int | None = None,
    dtype: str = "bf16",
    scores_kept: bool = True,
) -> TrainingMemory:
    """The estimated peak of a training step with AdamW, in bytes.

    dtype: fp32, or bf16 with fp32 master weights and moments beside bf16 weights and gradients. In both, gradients
    of micro-batches are added up in one more fp32 buffer. Activations are what autograd keeps for the backward pass of
    `micro_batch` sequences: per token and layer 2 norm inputs and 2 norm outputs (4 C), queries, keys, values and the
    attention's output ((2 H + 2 G) D, queries and keys twice where each head is normalised), and the feed-forward layer
    before and after its non-linearity (2 F; 4 F where it is gated); the scores and weights of attention (2 · heads · T
    each token) when `scores_kept`, which fused attention avoids; and the logits that are held at a time, in the model's
    dtype and twice in fp32.
    """
    T, size = min(context or config.context, config.context), BYTES[dtype]
    total, tokens = parameter_count(config).total, micro_batch * T
    in_heads = 2 * config.heads + 2 * config.key_heads + config.qk_norm * (config.heads + config.key_heads)
    per_layer = (
        4 * config.width
        + in_heads * config.head_width
        + (4 if config.gated else 2) * config.inner_width
        + (2 * config.heads * T if scores_kept else 0)
    )
    logits = min(tokens * config.vocab_size, LOGITS_AT_ONCE) * (size + 2 * BYTES["fp32"])
    moments, master = 2 * BYTES["fp32"], BYTES["fp32"] if dtype == "bf16" else 0
    return TrainingMemory(
        weights=total * size,
        gradients=total * (size + BYTES["fp32"]),
        optimiser=total * (moments + master),
        activations=tokens * (_attentions(config) * per_layer * size + 2 * config.width * size) + logits,
    )


def inference_memory(
    config: ModelConfig, sequences: int = 1, *, context: int | None = None, dtype: str = "bf16"
) -> InferenceMemory:
    """Bytes of the weights and of a KV cache for `sequences` sequences of `context` tokens."""
    T, size = min(context or config.context, config.context), BYTES[dtype]
    cache = 2 * _attentions(config) * config.key_heads * config.head_width * T * sequences * size
    return InferenceMemory(weights=parameter_count(config).total * size, cache=cache)


def flops_per_token(config: ModelConfig, context: int | None = None) -> int:
    """Floating-point operations to train on one token: 6 N + 12 L H D T (Chowdhery et al. 2022, PaLM, appendix B).

    Forward is a third of it: 2 N for the products with N weights and 4 L H D T for attention's two. N counts the
    weights in matrix products, so the embedding look-ups cost nothing; by convention attention counts whole, though a
    causal mask halves it and a window cuts it. T is the model's context when None. An encoder-decoder counts as if what
    it writes were as long as what it reads: an upper bound.
    """
    T = min(context or config.context, config.context)
    return 6 * parameter_count(config).in_products + 12 * _attentions(config) * config.heads * config.head_width * T


PEAK_FLOPS: dict[str, float] = {
    "B200": 2250e12,
    "H200": 989.4e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H100": 989.4e12,
    "A100": 312e12,
    "A10G": 70e12,
    "A10": 125e12,
    "A40": 149.7e12,
    "A6000": 154.8e12,
    "L40S": 362.05e12,
    "L40": 181.05e12,
    "L4": 121e12,
    "RTX 3090": 71.2e12,
    "RTX 4090": 165.2e12,
    "RTX 5090": 209.5e12,
}
"""Dense bf16 tensor-core FLOP/s with fp32 accumulation, from NVIDIA's data sheets and architecture papers, by a part of
the device's name."""

VARIANTS = {"LAPTOP", "MAX", "TI", "SUPER", "D", "MIG"}
"""Words that mark another chip of the same number, or a part of one: their peak is not in the table."""


def peak_flops(device_name: str) -> float | None:
    """The dense bf16 peak of a GPU by the name its driver gives; None when it is not known, CPUs included."""
    words = device_name.replace("-", " ").upper().split()
    matches = [name for name in PEAK_FLOPS if set(name.upper().split()) <= set(words)]
    if not matches or VARIANTS.intersection(words):
        return None
    return PEAK_FLOPS[max(matches, key=len)]
