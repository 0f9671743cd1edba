"""config.json of Llama, Mistral, Qwen2 and Qwen3, to and from a ModelConfig.

The keys are those that transformers 5.23 writes. Those of version 4 (`rope_theta`, `rope_scaling`), which knows no
`rope_parameters` and would turn by other angles without a word, are read and written as well. What a file leaves out is
what that library's classes assume.
"""

from __future__ import annotations

from typing import Any

import msgspec

from stages.store.architecture import ModelConfig, Rope

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
ROPE_NAMES = {
    "rope_theta": "theta",
    "rope_type": "kind",
    "factor": "factor",
    "original_max_position_embeddings": "original_context",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "beta_fast": "beta_fast",
    "beta_slow": "beta_slow",
    "attention_factor": "attention_factor",
    "mscale": "mscale",
    "mscale_all_dim": "mscale_all_dim",
    "truncate": "truncate",
}
SLIDING, FULL = "sliding_attention", "full_attention"
MOST_LAYERS = 1000


def fields(raw: dict[str, Any], family: str) -> dict[str, Any]:
    """The fields of a ModelConfig. Raises KeyError for a missing key, ValueError for what this decoder does not do."""
    activation = raw.get("hidden_act", "silu")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise ValueError(f"its activation is {str(activation)[:40]!r}, and only {', '.join(ACTIVATIONS)} are known")
    attention_bias, mlp_bias = raw.get("attention_bias", False), raw.get("mlp_bias", False)
    if family == "llama":
        key_heads = raw.get("num_key_value_heads")
    else:
        key_heads = raw["num_key_value_heads"]
    return {
        "layers": raw["num_hidden_layers"],
        "heads": raw["num_attention_heads"],
        "kv_heads": key_heads,
        "head_dim": raw.get("head_dim", 128 if family == "qwen3" else None),
        "width": raw["hidden_size"],
        "ff_width": raw["intermediate_size"],
        "context": raw["max_position_embeddings"],
        "vocab_size": raw["vocab_size"],
        "norm_kind": "rms",
        "norm_eps": raw.get("rms_norm_eps", 1e-6),
        "qk_norm": family == "qwen3",
        "positions": "rotary",
        "rope": _rope(raw),
        "dropout": raw.get("attention_dropout", 0.0),
        "tied": raw.get("tie_word_embeddings", False),
        "bias": False,
        "qkv_bias": True if family == "qwen2" else attention_bias,
        "out_bias": False if family == "qwen2" else attention_bias,
        "mlp_bias": mlp_bias,
        "activation": ACTIVATIONS[activation],
        "gated": True,
        **_window(raw, family),
    }


def keys(config: ModelConfig) -> dict[str, Any]:
    """What save_pretrained writes about a model of this shape."""
    family = config.family
    names = {ours: theirs for theirs, ours in ACTIVATIONS.items() if theirs not in ("swish", "gelu_new")}
    common: dict[str, Any] = {
        "attention_dropout": config.dropout,
        "hidden_act": names[config.activation],
        "hidden_size": config.width,
        "initializer_range": 0.02,
        "intermediate_size": config.inner_width,
        "max_position_embeddings": config.context,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "num_key_value_heads": config.key_heads,
        "rms_norm_eps": config.norm_eps,
        **_rope_keys(config.rope),
        "use_cache": True,
    }
    if family != "qwen2" or config.head_dim is not None:
        common["head_dim"] = config.head_width
    if family in ("llama", "qwen3"):
        common["attention_bias"] = config.biases.qkv
    if family == "llama":
        common |= {"mlp_bias": config.biases.mlp, "pretraining_tp": 1}
    if family == "mistral":
        common["sliding_window"] = config.window
    return common | (_window_keys(config) if family in ("qwen2", "qwen3") else {})


def _rope(raw: dict[str, Any]) -> dict[str, Any]:
    given = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if not isinstance(given, dict):
        raise ValueError("its rotary positions are not described by an object")
    said = {key: value for key, value in given.items() if value is not None}
    kind = said.pop("type", "default")
    said = {"rope_theta": raw.get("rope_theta", 10_000.0), "rope_type": kind} | said
    kind = said["rope_type"]
    partial = said.pop("partial_rotary_factor", raw.get("partial_rotary_factor", 1.0))
    if partial != 1.0:
        raise ValueError("its rotary positions turn a part of each head only, which is not known here")
    unknown = sorted(set(said) - set(ROPE_NAMES))
    if unknown:
        raise ValueError(f"its rotary positions have {str(unknown[0])[:40]!r}, which is not known here")
    if kind == "default":
        said = {key: said[key] for key in ("rope_theta", "rope_type")}
    if kind in ("llama3", "yarn"):
        said.setdefault("original_max_position_embeddings", raw["max_position_embeddings"])
    return {ROPE_NAMES[key]: value for key, value in said.items()}


def _rope_keys(rope: Rope) -> dict[str, Any]:
    """Rotary positions as version 5 writes them and, beside that, as version 4 does."""
    values = msgspec.to_builtins(rope)
    new = {theirs: values[ours] for theirs, ours in ROPE_NAMES.items() if values[ours] is not None}
    scaling = {key: value for key, value in new.items() if key != "rope_theta"}
    old = {"rope_theta": rope.theta} | ({} if rope.kind == "default" else {"rope_scaling": scaling})
    return {"rope_parameters": new} | old


def _window(raw: dict[str, Any], family: str) -> dict[str, Any]:
    """The window and the layers that have it; Qwen gives it to the layers from `max_window_layers` on."""
    kinds, layers = raw.get("layer_types"), raw["num_hidden_layers"]
    if kinds is not None and (not isinstance(kinds, list) or set(map(str, kinds)) - {SLIDING, FULL}):
        raise ValueError(f"its layers are of kinds other than {FULL} and {SLIDING}")
    if family == "llama":
        if kinds and SLIDING in kinds:
            raise ValueError(f"its layers are of the kind {SLIDING}, which llama does not have")
        return {}
    if family == "mistral":
        return {"window": raw.get("sliding_window", 4_096)}
    window = raw.get("sliding_window", 4_096) if raw.get("use_sliding_window", False) else None
    if kinds is None or not isinstance(layers, int) or not 0 < layers <= MOST_LAYERS:
        first = raw.get("max_window_layers", 28)
        known = isinstance(layers, int) and isinstance(first, int) and first >= 0 and layers <= MOST_LAYERS
        windowed = tuple(range(first, layers)) if known else ()
    else:
        if len(kinds) != layers:
            raise ValueError(f"`layer_types` names {len(kinds)} layers of {layers}")
        windowed = tuple(layer for layer, kind in enumerate(kinds) if kind == SLIDING)
        if windowed and window is None:
            raise ValueError(f"its layers are of the kind {SLIDING}, and there is no `sliding_window`")
    return {"window": window, "windowed_layers": windowed if window is not None else None}


def _window_keys(config: ModelConfig) -> dict[str, Any]:
    first = next((layer for layer, window in enumerate(config.windows) if window is not None), config.layers)
    return {
        "layer_types": [FULL if window is None else SLIDING for window in config.windows],
        "max_window_layers": first,
        "sliding_window": config.window,
        "use_sliding_window": config.window is not None,
    }
