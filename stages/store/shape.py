"""The shape of the model that pre-training settings ask for."""

from __future__ import annotations

import msgspec

from stages.store.errors import UserError
from stages.store.presets import ModelConfig, load_preset
from stages.store.specs.pretrain import Pretrain


def model_config(settings: Pretrain, vocab_size: int) -> ModelConfig:
    """The preset's shape with what the settings override, and the tokenizer's vocabulary.

    Raises UserError for an unknown preset and for a shape that cannot be built.
    """
    preset = load_preset(settings.preset)
    changes = {key: value for key in ("layers", "heads", "width", "context") if (value := getattr(settings, key))}
    if "width" in changes:
        changes["ff_width"] = None
    try:
        return msgspec.structs.replace(preset, vocab_size=vocab_size, dropout=settings.dropout, **changes)
    except ValueError as error:
        raise UserError(f"This model cannot be built: {error}.") from error


LR_TIMES_WIDTH = 0.384
"""The best learning rate falls as 1 / width (Yang et al., Tensor Programs V, arXiv 2203.03466). The constant is that of
nanoGPT's 10 M model, 1e-3 at width 384; it gives 5e-4 for GPT-2 small, whose usual rate is 6e-4."""


def peak_lr(settings: Pretrain, config: ModelConfig) -> float:
    """The peak learning rate in force."""
    return settings.lr or LR_TIMES_WIDTH / config.width
