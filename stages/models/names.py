"""What published files call the parameters of our models, family by family.

Ours keeps linear layers that read the same input side by side in one matrix (inputs, outputs). A published file may
have them apart, and as (outputs, inputs): each is a `Piece` of one of our parameters.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from stages.store.architecture import MODERN, ModelConfig


class Names(NamedTuple):
    """A family's names."""

    prefix: str
    """What a file that holds the bare model leaves out."""
    whole: dict[str, str]
    """Published names of the parameters outside the blocks."""
    block: str
    """Prefix of a block, with {} for its number."""
    parts: dict[str, tuple[str, ...]]
    """Our modules of a block, and the published modules that lie side by side in each."""
    outputs_first: bool
    """Whether linear layers are published as (outputs, inputs)."""


class Piece(NamedTuple):
    """A published tensor as columns `start` to `stop` of one of our parameters, along its last dimension."""

    name: str
    start: int
    stop: int
    transposed: bool


_GPT = Names(
    prefix="transformer.",
    whole={
        "tokens": "transformer.wte.weight",
        "positions": "transformer.wpe.weight",
        "head": "lm_head.weight",
        "score": "score.weight",
        "sequence_head.weight": "score.weight",
        "token_head.weight": "classifier.weight",
        "token_head.bias": "classifier.bias",
        "final_norm.weight": "transformer.ln_f.weight",
        "final_norm.bias": "transformer.ln_f.bias",
    },
    block="transformer.h.{}.",
    parts={
        "norm_1": ("ln_1",),
        "attention_in": ("attn.c_attn",),
        "attention_out": ("attn.c_proj",),
        "norm_2": ("ln_2",),
        "mlp_in": ("mlp.c_fc",),
        "mlp_out": ("mlp.c_proj",),
    },
    outputs_first=False,
)
_LLAMA = Names(
    prefix="model.",
    whole={
        "tokens": "model.embed_tokens.weight",
        "head": "lm_head.weight",
        "score": "score.weight",
        "sequence_head.weight": "score.weight",
        "token_head.weight": "score.weight",
        "token_head.bias": "score.bias",
        "final_norm.weight": "model.norm.weight",
    },
    block="model.layers.{}.",
    parts={
        "norm_1": ("input_layernorm",),
        "attention_in": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "q_norm": ("self_attn.q_norm",),
        "k_norm": ("self_attn.k_norm",),
        "attention_out": ("self_attn.o_proj",),
        "norm_2": ("post_attention_layernorm",),
        "mlp_in": ("mlp.gate_proj", "mlp.up_proj"),
        "mlp_out": ("mlp.down_proj",),
    },
    outputs_first=True,
)
_BERT = Names(
    prefix="bert.",
    whole={
        "tokens": "bert.embeddings.word_embeddings.weight",
        "positions": "bert.embeddings.position_embeddings.weight",
        "types": "bert.embeddings.token_type_embeddings.weight",
        "embedding_norm.weight": "bert.embeddings.LayerNorm.weight",
        "embedding_norm.bias": "bert.embeddings.LayerNorm.bias",
        "transform.weight": "cls.predictions.transform.dense.weight",
        "transform.bias": "cls.predictions.transform.dense.bias",
        "transform_norm.weight": "cls.predictions.transform.LayerNorm.weight",
        "transform_norm.bias": "cls.predictions.transform.LayerNorm.bias",
        "token_bias": "cls.predictions.bias",
        "pooler.weight": "bert.pooler.dense.weight",
        "pooler.bias": "bert.pooler.dense.bias",
        "sequence_head.weight": "classifier.weight",
        "sequence_head.bias": "classifier.bias",
        "token_head.weight": "classifier.weight",
        "token_head.bias": "classifier.bias",
    },
    block="bert.encoder.layer.{}.",
    parts={
        "attention_in": ("attention.self.query", "attention.self.key", "attention.self.value"),
        "attention_out": ("attention.output.dense",),
        "norm_1": ("attention.output.LayerNorm",),
        "mlp_in": ("intermediate.dense",),
        "mlp_out": ("output.dense",),
        "norm_2": ("output.LayerNorm",),
    },
    outputs_first=True,
)
_T5 = Names(
    prefix="",
    whole={
        "tokens": "shared.weight",
        "head": "lm_head.weight",
        "encoder_bias": "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        "decoder_bias": "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        "encoder_norm.weight": "encoder.final_layer_norm.weight",
        "decoder_norm.weight": "decoder.final_layer_norm.weight",
    },
    block="encoder.block.{}.",
    parts={
        "norm_1": ("layer.0.layer_norm",),
        "attention_in": ("layer.0.SelfAttention.q", "layer.0.SelfAttention.k", "layer.0.SelfAttention.v"),
        "attention_out": ("layer.0.SelfAttention.o",),
        "norm_2": ("layer.1.layer_norm",),
        "mlp_in": ("layer.1.DenseReluDense.wi_0", "layer.1.DenseReluDense.wi_1"),
        "mlp_out": ("layer.1.DenseReluDense.wo",),
    },
    outputs_first=True,
)
_T5_WRITER = _T5._replace(
    block="decoder.block.{}.",
    parts=_T5.parts
    | {
        "cross_norm": ("layer.1.layer_norm",),
        "cross_in": ("layer.1.EncDecAttention.q",),
        "cross_keys": ("layer.1.EncDecAttention.k", "layer.1.EncDecAttention.v"),
        "cross_out": ("layer.1.EncDecAttention.o",),
        "norm_2": ("layer.2.layer_norm",),
        "mlp_in": ("layer.2.DenseReluDense.wi_0", "layer.2.DenseReluDense.wi_1"),
        "mlp_out": ("layer.2.DenseReluDense.wo",),
    },
)
"""Of the decoder, which stands beside the encoder."""
FAMILIES: dict[str, Names] = {
    "gpt2": _GPT,
    "bert": _BERT,
    "t5": _T5,
    "transformer-xl": Names("", {}, "", {}, False),
    "gpt1": _GPT._replace(
        whole=_GPT.whole
        | {"tokens": "transformer.tokens_embed.weight", "positions": "transformer.positions_embed.weight"}
    ),
} | dict.fromkeys(MODERN, _LLAMA)

TOKEN_CLASSES = ("gpt2", "bert", *MODERN)
"""Families of which transformers has a …ForTokenClassification."""

BUFFERS = re.compile(r"(^|\.)(attn\.(masked_)?bias|rotary_emb\.inv_freq|embeddings\.position_ids)$")
"""Tensors of old files that are no weights: masks and frequencies, which anyone can compute."""


def pieces(config: ModelConfig, ours: str) -> list[Piece]:
    """The published tensors that make up one of our parameters, by its name in `named_parameters`."""
    names = FAMILIES[config.family]
    if config.family == "transformer-xl":  # no published class: our names are the file's
        return [Piece(ours, 0, -1, False)]
    if ours in names.whole:
        return [Piece(names.whole[ours], 0, -1, False)]
    stack, layer, part, kind = ours.split(".")
    if stack == "decoder_blocks":
        names = _T5_WRITER
    modules = names.parts[part]
    if config.family == "t5" and part == "mlp_in" and not config.gated:
        modules = (modules[0].removesuffix("_0"),)
    published = [f"{names.block.format(layer)}{module}.{kind}" for module in modules]
    transposed = names.outputs_first and kind == "weight" and part in LINEAR + CROSS
    if len(published) == 1:
        return [Piece(published[0], 0, -1, transposed)]
    found, start = [], 0
    for name, width in zip(published, part_widths(config, part), strict=True):
        found.append(Piece(name, start, start + width, transposed))
        start += width
    return found


BERT_MORE = ("bert.pooler.", "cls.seq_relationship.", "cls.predictions.decoder.")
"""What published encoders have beside those parts: a pooler, a head for pairs of sentences, the tied output layer."""

T5_MORE = (
    "encoder.embed_tokens.weight",
    "decoder.embed_tokens.weight",
    "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
)
"""What published T5 files hold besides: copies of the embedding, and a bias that nothing reads."""

LINEAR = ("attention_in", "attention_out", "mlp_in", "mlp_out")
"""Our linear layers in a block."""
CROSS = ("cross_in", "cross_keys", "cross_out")
"""And those by which T5's decoder looks at what its encoder has read."""


def part_widths(config: ModelConfig, part: str) -> tuple[int, ...]:
    """Outputs of the layers that lie side by side in one of our linear layers, where a family publishes them apart."""
    keys = config.key_heads * config.head_width
    return {
        "attention_in": (config.heads * config.head_width, keys, keys),
        "cross_keys": (keys, keys),
        "mlp_in": (config.inner_width,) * (2 if config.gated else 1),
    }.get(part, (config.width,))


def spellings(config: ModelConfig, name: str) -> list[str]:
    """How files may write a published name: also without the prefix, and BERT's norms as they were first called."""
    plain = [name, name.removeprefix(FAMILIES[config.family].prefix)]
    if config.family != "bert":
        return plain
    old = [
        each.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        for each in plain
    ]
    return [*plain, *old]


def is_weight(config: ModelConfig, name: str) -> bool:
    """Whether a tensor that our decoder has no place for means that the file is of another model.

    Not: buffers, an output layer beside a tied embedding, the biases of 0 that a GPT without biases is saved with, and
    parts of a BERT that filling blanks does not use, and what T5's files hold twice.
    """
    if (config.family == "bert" and name.startswith(BERT_MORE)) or (config.family == "t5" and name in T5_MORE):
        return False
    if BUFFERS.search(name) or (config.tied and name == "lm_head.weight"):
        return False
    return not (config.family in ("gpt2", "gpt1") and not config.bias and name.endswith(".bias"))
