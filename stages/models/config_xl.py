"""config.json of Transformer-XL, in a format of our own: the fields of a ModelConfig by their names."""

from __future__ import annotations

from typing import Any

import msgspec

from stages.store.architecture import ModelConfig

KEYS = ("layers", "heads", "head_dim", "width", "ff_width", "context", "memory", "norm_eps", "dropout", "activation")
FIXED: dict[str, Any] = {
    "norm": "post",
    "positions": "sinusoidal",
    "tied": True,
    "qkv_bias": False,
    "out_bias": False,
}
"""What every Transformer-XL is."""


def fields(raw: dict[str, Any], family: str) -> dict[str, Any]:
    """The fields of a ModelConfig. Raises KeyError for a missing key."""
    return FIXED | {key: raw[key] for key in (*KEYS, "vocab_size")}


def keys(config: ModelConfig) -> dict[str, Any]:
    """What config.json says about a model of this shape."""
    said = msgspec.to_builtins(config)
    return {key: said[key] for key in KEYS}
