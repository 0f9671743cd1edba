"""config.json of T5 and T5 1.1, to and from a ModelConfig. The keys are those that transformers 5.23 writes."""

from __future__ import annotations

from typing import Any

from stages.store.architecture import ModelConfig

ACTIVATIONS = {
    "relu": ("relu", False),
    "gelu_new": ("gelu_tanh", False),
    "silu": ("silu", False),
    "gated-relu": ("relu", True),
    "gated-gelu": ("gelu_tanh", True),
    "gated-gelu_new": ("gelu_tanh", True),
    "gated-silu": ("silu", True),
}
"""By `feed_forward_proj`: our activation, and whether the network is gated."""

FIXED: dict[str, Any] = {"is_decoder": False, "is_encoder_decoder": True}
"""What this model does, of what T5's configuration could ask for."""

CONTEXT = 512
"""What published models were trained on, where a file does not say: relative positions set no limit."""


def fields(raw: dict[str, Any], family: str) -> dict[str, Any]:
    """The fields of a ModelConfig. Raises KeyError for a missing key, ValueError for what this model does not do.

    Whether an output layer stands beside the embedding, the weights tell (`stages.models.t5.t5_config`): transformers
    writes `tie_word_embeddings` as true in either case.
    """
    said = raw.get("feed_forward_proj", "relu")
    if said not in ACTIVATIONS:
        raise ValueError(f"its `feed_forward_proj` is {str(said)[:40]!r}, and only {', '.join(ACTIVATIONS)} are known")
    for key, wanted in FIXED.items():
        if raw.get(key, wanted) != wanted:
            raise ValueError(f"its `{key}` is {str(raw[key])[:40]}, and only {wanted!r} is known")
    activation, gated = ACTIVATIONS[said]
    tied = raw.get("tie_word_embeddings", True)
    return {
        "layers": raw["num_layers"],
        "decoder_layers": raw.get("num_decoder_layers"),
        "heads": raw["num_heads"],
        "head_dim": raw["d_kv"],
        "width": raw["d_model"],
        "ff_width": raw["d_ff"],
        "context": raw.get("n_positions") or CONTEXT,
        "vocab_size": raw["vocab_size"],
        "norm_kind": "rms",
        "norm_eps": raw.get("layer_norm_epsilon", 1e-6),
        "positions": "relative",
        "buckets": raw.get("relative_attention_num_buckets", 32),
        "bucket_distance": raw.get("relative_attention_max_distance", 128),
        "dropout": raw.get("dropout_rate", 0.1),
        "tied": tied,
        "scaled_logits": raw.get("scale_decoder_outputs", tied),
        "bias": False,
        "activation": activation,
        "gated": gated,
    }


def keys(config: ModelConfig) -> dict[str, Any]:
    """What save_pretrained writes about a model of this shape, and the length that it was trained on."""
    said = next(name for name, shape in ACTIVATIONS.items() if shape == (config.activation, config.gated))
    return FIXED | {
        "classifier_dropout": 0.0,
        "d_ff": config.inner_width,
        "d_kv": config.head_width,
        "d_model": config.width,
        "dense_act_fn": "gelu_new" if config.activation == "gelu_tanh" else config.activation,
        "dropout_rate": config.dropout,
        "feed_forward_proj": said,
        "initializer_factor": 1.0,
        "is_gated_act": config.gated,
        "layer_norm_epsilon": config.norm_eps,
        "n_positions": config.context,
        "num_decoder_layers": config.writing_layers,
        "num_heads": config.heads,
        "num_layers": config.layers,
        "relative_attention_max_distance": config.bucket_distance,
        "relative_attention_num_buckets": config.buckets,
        "scale_decoder_outputs": config.scaled_logits,
        "use_cache": True,
    }
