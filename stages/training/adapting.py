"""Opening a checkpoint to train it, whole or by adapters, and writing what came out in the form that was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec
import torch
from torch import nn

from stages.models.bases import base_folder
from stages.models.decoder import Decoder
from stages.models.hf import load_model, save_weights
from stages.models.hf_config import read_config
from stages.models.lora import LoraConfig, add_lora, has_lora, load_adapter, merge_lora, save_adapter
from stages.store.architecture import ModelConfig
from stages.store.errors import UserError
from stages.store.files import check_space
from stages.store.specs.tuning import Tuning

ADAPTER = "adapter"
"""Folder of the adapters in a checkpoint whose weights have them merged in: training goes on from there."""


class Ids(NamedTuple):
    """Special tokens that config.json and generation_config.json name."""

    eos: list[int]
    pad: int


def config_of(base: Path, dropout: float) -> ModelConfig:
    """The shape of a checkpoint's model, with the dropout it is to train with."""
    return msgspec.structs.replace(read_config(base_folder(base)), dropout=dropout)


def open_whole(base: Path, device: torch.device | str, config: ModelConfig) -> Decoder:
    """The model of a checkpoint in fp32, all of it trainable; adapters of the checkpoint are merged in."""
    folder = base_folder(base)
    model = load_model(folder, torch.float32, device, config)
    if folder != base:
        load_adapter(model, base)
        merge_lora(model)
    return model


def open_adapted(
    base: Path, checkpoint: Path | None, settings: Tuning, device: torch.device | str, config: ModelConfig
) -> Decoder:
    """The same frozen, with new adapters, or those of the checkpoint that training goes on from."""
    model = open_whole(base, device, config)
    if settings.lora_keep == "adapter" and base_folder(base) != base:
        raise UserError(f"{base} is itself an adapter.", "Set lora_keep to merged.")
    if checkpoint is not None:
        merged = (checkpoint / ADAPTER).is_dir()
        load_adapter(model, checkpoint / ADAPTER if merged else checkpoint)
        return model
    targets = tuple(settings.lora_targets) or LoraConfig().targets
    wanted = LoraConfig(settings.lora_rank, settings.lora_alpha, settings.lora_dropout, targets)
    add_lora(model, wanted, seed=settings.seed)
    return model


def freeze_in(model: nn.Module, dtype: torch.dtype) -> None:
    """Keep the frozen weights in the precision of the arithmetic: nothing updates them."""
    for parameter in model.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)


def write_trained(model: Decoder, folder: Path, base: Path, ids: Ids, *, keep: str) -> None:
    """Write the model into a checkpoint's folder: whole, or as adapters, or merged with the adapters beside.

    Merging takes the base's weights from its files: those in memory may be rounded to bf16.
    """
    if not has_lora(model):
        save_weights(model, folder, eos_id=ids.eos, pad_id=ids.pad)
    elif keep == "adapter":
        save_adapter(model, folder, base)
    else:
        (folder / ADAPTER).mkdir()
        save_adapter(model, folder / ADAPTER, base)
        whole = open_whole(base, "cpu", model.config)
        check_space(folder, sum(parameter.nbytes for parameter in whole.parameters()))
        load_adapter(whole, folder / ADAPTER)
        merge_lora(whole)
        save_weights(whole, folder, eos_id=ids.eos, pad_id=ids.pad)
