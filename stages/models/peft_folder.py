"""adapter_config.json of a PEFT LoRA folder, and what its weights are called. The keys are those of peft 0.21."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from stages.models.hf_config import read_json, write_json
from stages.store.errors import UserError

CONFIG, FILE = "adapter_config.json", "adapter_model.safetensors"

UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "bias": ("none", None),
    "use_dora": (False, None),
    "use_qalora": (False, None),
    "modules_to_save": (None, []),
    "trainable_token_indices": (None, [], {}),
    "rank_pattern": (None, {}),
    "alpha_pattern": (None, {}),
    "lora_bias": (False, None),
    "target_parameters": (None, []),
    "alora_invocation_tokens": (None, []),
    "init_lora_weights": (True, False, None, "gaussian", "orthogonal", "eva"),
}
"""Values that mean a plain adapter on an unchanged base; anything else is refused by name."""


class AdapterConfig(NamedTuple):
    """What a folder says of its adapters."""

    base: str
    rank: int
    alpha: float
    dropout: float
    targets: tuple[str, ...]
    inputs_first: bool = False
    """Whether the base keeps its linear layers as (inputs, outputs), as GPT-2 does."""
    by_root: bool = False
    """Whether the scale is alpha / √rank (Kalajdzievski 2023, arXiv 2312.03732)."""

    @property
    def scale(self) -> float:
        """What the product of an adapter's matrices is multiplied by."""
        return self.alpha / (self.rank**0.5 if self.by_root else self.rank)


class _File(msgspec.Struct):
    r: int
    lora_alpha: float
    lora_dropout: float = 0.0
    base_model_name_or_path: str | None = None
    use_rslora: bool | None = False
    fan_in_fan_out: bool | None = False


def tensor_names(layer: str) -> tuple[str, str]:
    """Names of A (rank, inputs) and B (outputs, rank) of a published layer."""
    return f"base_model.model.{layer}.lora_A.weight", f"base_model.model.{layer}.lora_B.weight"


def write_adapter_config(folder: Path, config: AdapterConfig) -> None:
    """Write adapter_config.json into a folder, as peft reads it."""
    alpha = int(config.alpha) if config.alpha == int(config.alpha) else config.alpha
    values = {
        "base_model_name_or_path": config.base,
        "bias": "none",
        "fan_in_fan_out": config.inputs_first,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": alpha,
        "lora_dropout": config.dropout,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": config.rank,
        "target_modules": list(config.targets),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }
    write_json(folder / CONFIG, values)


def read_adapter_config(folder: Path) -> AdapterConfig:
    """Raises UserError for what is no plain LoRA adapter, or holds its weights as a pickle only."""
    path = folder / CONFIG
    raw = read_json(path)
    if raw.get("peft_type") != "LORA":
        raise UserError(f"{path} describes an adapter of type {str(raw.get('peft_type'))[:40]!r}; only LORA is known.")
    for key, allowed in UNSUPPORTED.items():
        if raw.get(key) not in allowed:
            raise UserError(f"{path} sets `{key}` to {str(raw[key])[:60]}, which is not known here.")
    if not (folder / FILE).is_file():
        pickled = (folder / "adapter_model.bin").exists()
        why = "only as a pickle, which could run code when opened" if pickled else "nowhere"
        raise UserError(f"{folder} holds its adapter's weights {why}.", f"An adapter here is {CONFIG} and {FILE}.")
    try:
        read = msgspec.convert(raw, _File)
    except msgspec.ValidationError as error:
        raise UserError(f"{path} does not describe an adapter: {error}.") from error
    if not 1 <= read.r <= 65_536 or not 0 <= read.lora_dropout < 1:
        raise UserError(f"{path} does not describe an adapter: rank {read.r}, dropout {read.lora_dropout}.")
    return AdapterConfig(
        base=read.base_model_name_or_path or "",
        rank=read.r,
        alpha=read.lora_alpha,
        dropout=read.lora_dropout,
        targets=(),
        inputs_first=bool(read.fan_in_fan_out),
        by_root=bool(read.use_rslora),
    )
