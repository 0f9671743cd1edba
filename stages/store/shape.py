"""The shape of the model that pre-training settings ask for."""

from __future__ import annotations

import msgspec

from stages.store.architecture import ModelConfig
from stages.store.errors import UserError
from stages.store.presets import list_presets, load_preset
from stages.store.rundir import RunSpec
from stages.store.specs import spec_of
from stages.store.specs.pretrain import Pretrain
from stages.store.tokenizers import find_tokenizer
from stages.store.workspace import Workspace


def model_config(settings: Pretrain, vocab_size: int) -> ModelConfig:
    """The preset's shape with what the settings override, and the tokenizer's vocabulary.

    Raises UserError for an unknown preset, one that the stage cannot train, and for a shape that cannot be built.
    """
    preset = load_preset(settings.preset)
    if preset.kind != settings.KIND:
        fitting = [name for name in list_presets() if load_preset(name).kind == settings.KIND]
        kind = f"{'a' if settings.KIND == 'decoder' else 'an'} {settings.KIND}"
        raise UserError(f"The preset {settings.preset!r} is not {kind}.", f"These are: {', '.join(fitting)}.")
    changes = {key: value for key in ("layers", "heads", "width", "context") if (value := getattr(settings, key))}
    if (memory := getattr(settings, "memory", None)) is not None:
        changes["memory"] = memory
    if "width" in changes:
        changes["ff_width"] = _inner_width(preset, changes["width"])
    if "width" in changes or "heads" in changes:
        changes["head_dim"] = None
        changes["kv_heads"] = _key_heads(preset, changes.get("heads", preset.heads))
    try:
        return msgspec.structs.replace(preset, vocab_size=vocab_size, dropout=settings.dropout, **changes)
    except ValueError as error:
        raise UserError(f"This model cannot be built: {error}.") from error


def shape_of_run(workspace: Workspace, spec: RunSpec) -> ModelConfig | None:
    """The shape of the new model that a run makes; None where it makes none, or its tokenizer is another by now.

    Raises UserError when the tokenizer is gone, msgspec.ValidationError when another version wrote the settings.
    """
    kind, tokenizer = spec_of(spec.stage), spec.parents.get("tokenizer")
    if not issubclass(kind, Pretrain) or tokenizer is None:
        return None
    info = find_tokenizer(workspace, tokenizer.name).info
    same = info.digest == tokenizer.digest
    return model_config(msgspec.convert(spec.settings, kind), info.vocab_size) if same else None


def _inner_width(preset: ModelConfig, width: int) -> int | None:
    """The feed-forward width at another width: four times, or in the preset's proportion where that is another."""
    return None if preset.inner_is_fourfold else max(8, round(preset.inner_width * width / preset.width / 8) * 8)


def _key_heads(preset: ModelConfig, heads: int) -> int | None:
    """Key and value heads for so many query heads: in groups as the preset has them, where that comes out even."""
    group = preset.heads // preset.key_heads
    return heads // group if preset.grouped and heads % group == 0 else None


LR_TIMES_WIDTH = 0.384
"""The best learning rate falls as 1 / width (Yang et al., Tensor Programs V, arXiv 2203.03466). The constant is that of
nanoGPT's 10 M model, 1e-3 at width 384; it gives 5e-4 for GPT-2 small, whose usual rate is 6e-4."""


def peak_lr(settings: Pretrain, config: ModelConfig) -> float:
    """The peak learning rate in force. A norm after the residual sum, as BERT has it, stands a third of the rate."""
    return settings.lr or LR_TIMES_WIDTH / config.width / (3 if config.norm == "post" else 1)
