"""config.json and generation_config.json of GPT-2 and GPT-1 as Hugging Face folders have them, to and from ModelConfig.

The keys are those that transformers 5.23 writes for GPT2LMHeadModel and OpenAIGPTLMHeadModel.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from stages.store.errors import UserError
from stages.store.presets import ModelConfig

TRANSFORMERS_VERSION = "5.23.0"
MAX_JSON_BYTES = 64 * 1024 * 1024

ACTIVATION_NAMES = {"gelu_tanh": "gelu_new", "gelu": "gelu", "relu": "relu"}
GPT2_ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu", "relu": "relu"}
GPT1_ACTIVATIONS = {"gelu": "gelu_tanh", "gelu_new": "gelu_tanh", "relu": "relu"}

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


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises UserError when it is missing, too large, or no JSON object."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise UserError(f"{path} is larger than a {path.name} can be.")
        value = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.", "Is this a Hugging Face model folder?") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} does not hold a JSON object.")
    return value


def write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", "utf-8")


def read_config(folder: Path) -> ModelConfig:
    """The shape that a model folder's config.json describes. Raises UserError when this decoder cannot run it."""
    path = folder / "config.json"
    raw = read_json(path)
    kind = raw.get("model_type")
    if kind not in ("gpt2", "openai-gpt"):
        raise UserError(
            f"{path} describes a model of type {kind!r}, which this version does not know.",
            "It knows gpt2 and openai-gpt.",
        )
    try:
        return msgspec.convert(_fields(raw, kind == "openai-gpt"), ModelConfig)
    except msgspec.ValidationError as error:
        raise UserError(f"{path} does not describe a model that can be built: {error}.") from error
    except KeyError as error:
        raise UserError(f"{path} lacks the key {error.args[0]!r}.") from error


def _fields(raw: dict[str, Any], gpt1: bool) -> dict[str, Any]:
    activation = raw.get("afn" if gpt1 else "activation_function", "gelu" if gpt1 else "gelu_new")
    names = GPT1_ACTIVATIONS if gpt1 else GPT2_ACTIVATIONS
    if not isinstance(activation, str) or activation not in names:
        raise msgspec.ValidationError(f"its activation is {activation!r}, and only {', '.join(names)} are known")
    for key, wanted in {} if gpt1 else FIXED_GPT2.items():
        if key != "reorder_and_upcast_attn" and raw.get(key, wanted) != wanted:
            raise msgspec.ValidationError(f"its `{key}` is {raw[key]!r}, and only {wanted!r} is known")
    return {
        "family": "gpt1" if gpt1 else "gpt2",
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


def config_json(config: ModelConfig, dtype: str, ids: dict[str, int | None]) -> dict[str, Any]:
    """What save_pretrained writes as config.json. dtype: "float32", "bfloat16"; ids: bos_token_id and so on."""
    gpt1 = config.family == "gpt1"
    common = {
        "architectures": ["OpenAIGPTLMHeadModel" if gpt1 else "GPT2LMHeadModel"],
        "attn_pdrop": config.dropout,
        "dtype": dtype,
        "embd_pdrop": config.dropout,
        "initializer_range": 0.02,
        "layer_norm_epsilon": config.norm_eps,
        "model_type": "openai-gpt" if gpt1 else "gpt2",
        "n_embd": config.width,
        "n_head": config.heads,
        "n_layer": config.layers,
        "n_positions": config.context,
        "resid_pdrop": config.dropout,
        "tie_word_embeddings": config.tied,
        "transformers_version": TRANSFORMERS_VERSION,
        "vocab_size": config.vocab_size,
    }
    special = {f"{name}_token_id": ids.get(name) for name in ("bos", "eos", "pad")}
    # Not one of GPT-2's keys: the folder holds biases of 0, and this says that training must leave them out.
    extra = {} if config.bias else {"bias": False}
    if gpt1:
        afn = "relu" if config.activation == "relu" else "gelu"
        return common | special | SUMMARY | extra | {"afn": afn}
    shape = {"activation_function": ACTIVATION_NAMES[config.activation], "n_inner": config.ff_width, "use_cache": True}
    return common | special | SUMMARY | FIXED_GPT2 | extra | shape


def generation_json(config: ModelConfig, ids: dict[str, int | None]) -> dict[str, Any]:
    """What save_pretrained writes as generation_config.json."""
    fixed: dict[str, Any] = {
        "_from_model_config": True,
        "output_attentions": False,
        "output_hidden_states": False,
        "transformers_version": TRANSFORMERS_VERSION,
    }
    special = {f"{name}_token_id": value for name, value in ids.items() if value is not None}
    return fixed | special | ({} if config.family == "gpt1" else {"use_cache": True})
