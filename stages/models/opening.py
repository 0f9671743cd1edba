"""Opening a checkpoint to run it: a model folder, or an adapter merged into the base that it names."""

from __future__ import annotations

from pathlib import Path

import torch

from stages.models.bases import base_folder
from stages.models.decoder import Decoder
from stages.models.hf import load_model
from stages.models.lora import load_adapter, merge_lora


def open_decoder(folder: Path, dtype: torch.dtype | None = None, device: torch.device | str = "cpu") -> Decoder:
    """The decoder of a checkpoint in evaluation mode, its adapters merged in. Raises UserError like `load_model`."""
    base = base_folder(folder)
    model = load_model(base, dtype=dtype, device=device)
    if base != folder:
        load_adapter(model, folder)
        merge_lora(model)
    return model
