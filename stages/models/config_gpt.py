"""config.json of GPT-2 and GPT-1, to and from a ModelConfig. The keys are those that transformers 5.23 writes."""

from __future__ import annotations

from typing import Any

from stages.store.architecture import ModelConfig

ACTIVATION_NAMES = {"gelu_tanh": "gelu_new", "gelu": "gelu", "relu": "relu", "silu": "silu"}
GPT2_ACTIVATIONS = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
    "silu": "silu",
}
GPT1_ACTIVATIONS = {"gelu": "gelu_tanh", "gelu_new": "gelu_tanh", "relu": "relu", "silu": "silu", "swish": "silu"}

SUMMARY: dict[str, Any] = {
    "summary_activation": None,
    "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True,
    "summary_type": "cls_index",
    "summary_use_proj": True,
}
FIXED_GPT2: dict[str, Any] = {
    "add_cross_attention": False,
    "reorder_and_upcast_attn": False,
    "scale_attn_by_inverse_layer_idx": False,
    "scale_attn_weights": True,
}
"""What this decoder does, of what GPT-2's configuration could ask for. Upcasting changes rounding only."""


def fields(raw: dict[str, Any], family: str) -> dict[str, Any]:
    """The fields of a ModelConfig. Raises KeyError for a missing key, ValueError for what this decoder does not do."""
    gpt1 = family == "gpt1"
    activation = raw.get("afn" if gpt1 else "activation_function", "gelu" if gpt1 else "gelu_new")
    names = GPT1_ACTIVATIONS if gpt1 else GPT2_ACTIVATIONS
    if not isinstance(activation, str) or activation not in names:
        raise ValueError(f"its activation is {str(activation)[:40]!r}, and only {', '.join(names)} are known")
    for key, wanted in {} if gpt1 else FIXED_GPT2.items():
        if key != "reorder_and_upcast_attn" and raw.get(key, wanted) != wanted:
            raise ValueError(f"its `{key}` is {str(raw[key])[:40]}, and only {wanted!r} is known")
    return {
        "layers": raw["n_layer"],
        "heads": raw["n_head"],
        "width": raw["n_embd"],
        "ff_width": None if gpt1 else raw.get("n_inner"),
        "context": raw["n_positions"],
        "vocab_size": raw["vocab_size"],
        "norm": "post" if gpt1 else "pre",
        "norm_eps": raw.get("layer_norm_epsilon", 1e-5),
        "dropout": raw.get("resid_pdrop", 0.1),
        "tied": raw.get("tie_word_embeddings", True),
        "bias": raw.get("bias", True),
        "activation": names[activation],
    }


def keys(config: ModelConfig) -> dict[str, Any]:
    """What save_pretrained writes about a model of this shape."""
    gpt1 = config.family == "gpt1"
    common = {
        "attn_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "initializer_range": 0.02,
        "layer_norm_epsilon": config.norm_eps,
        "n_embd": config.width,
        "n_head": config.heads,
        "n_layer": config.layers,
        "n_positions": config.context,
        "resid_pdrop": config.dropout,
    }
    # Not one of GPT-2's keys: the folder holds biases of 0, and this says that training must leave them out.
    extra = {} if config.bias else {"bias": False}
    if gpt1:
        afn = "gelu" if config.activation == "gelu_tanh" else config.activation
        return common | SUMMARY | extra | {"afn": afn}
    shape = {"activation_function": ACTIVATION_NAMES[config.activation], "n_inner": config.ff_width, "use_cache": True}
    return common | SUMMARY | FIXED_GPT2 | extra | shape
