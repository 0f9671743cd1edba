"""config.json of BERT, to and from a ModelConfig. The keys are those that transformers 5.23 writes."""

from __future__ import annotations

from typing import Any

from stages.models.config_gpt import ACTIVATION_NAMES, GPT2_ACTIVATIONS
from stages.store.architecture import ModelConfig

FIXED: dict[str, Any] = {"add_cross_attention": False, "is_decoder": False}
"""What this encoder does, of what BERT's configuration could ask for."""


def fields(raw: dict[str, Any], family: str) -> dict[str, Any]:
    """The fields of a ModelConfig. Raises KeyError for a missing key, ValueError for what this encoder does not do."""
    activation = raw.get("hidden_act", "gelu")
    if activation not in GPT2_ACTIVATIONS:
        raise ValueError(
            f"its activation is {str(activation)[:40]!r}, and only {', '.join(GPT2_ACTIVATIONS)} are known"
        )
    for key, wanted in FIXED.items():
        if raw.get(key, wanted) != wanted:
            raise ValueError(f"its `{key}` is {str(raw[key])[:40]}, and only {wanted!r} is known")
    if (positions := raw.get("position_embedding_type", "absolute")) != "absolute":
        raise ValueError(f"its positions are {str(positions)[:40]!r}, and only 'absolute' is known")
    return {
        "layers": raw["num_hidden_layers"],
        "heads": raw["num_attention_heads"],
        "width": raw["hidden_size"],
        "ff_width": raw["intermediate_size"],
        "context": raw["max_position_embeddings"],
        "vocab_size": raw["vocab_size"],
        "types": raw.get("type_vocab_size", 2),
        "norm": "post",
        "norm_eps": raw.get("layer_norm_eps", 1e-12),
        "dropout": raw.get("hidden_dropout_prob", 0.1),
        "tied": raw.get("tie_word_embeddings", True),
        "activation": GPT2_ACTIVATIONS[activation],
    }


def keys(config: ModelConfig) -> dict[str, Any]:
    """What save_pretrained writes about a model of this shape."""
    return FIXED | {
        "attention_probs_dropout_prob": config.dropout,
        "classifier_dropout": None,
        "hidden_act": ACTIVATION_NAMES[config.activation],
        "hidden_dropout_prob": config.dropout,
        "hidden_size": config.width,
        "initializer_range": 0.02,
        "intermediate_size": config.inner_width,
        "layer_norm_eps": config.norm_eps,
        "max_position_embeddings": config.context,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "type_vocab_size": config.types,
        "use_cache": True,
    }
