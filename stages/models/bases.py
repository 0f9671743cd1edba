"""Which folder holds the weights of a checkpoint: its own, or that of the base that an adapter names. Without torch."""

from __future__ import annotations

from pathlib import Path

from stages.models.hf_config import read_any_config, read_config
from stages.models.peft_folder import CONFIG, read_adapter_config
from stages.store.architecture import ModelConfig
from stages.store.checkpoints import MANIFEST, Checkpoint
from stages.store.errors import UserError
from stages.store.hub import cached_model


def checkpoint_config(folder: Path) -> ModelConfig:
    """The shape of a checkpoint's model, that of its base for an adapter."""
    return read_config(base_folder(folder))


def refuse_short_sighted(folder: Path, longest: int, who: str, hint: str = "Choose one with a longer context.") -> None:
    """Raise UserError where the model of a checkpoint sees fewer tokens than the longest text that it is to read.

    who: what the model is here, such as the reward model.
    """
    if (sees := checkpoint_config(folder).context) < longest:
        raise UserError(f"The {who} sees {sees:,} tokens, and the longest text it is to read has {longest:,}.", hint)


def writer_config(folder: Path) -> ModelConfig:
    """The same of a model that writes, in one way or another: a decoder, a Transformer-XL or a T5."""
    base = base_folder(folder)
    config = read_any_config(base)
    return config if config.kind in ("encoder-decoder", "recurrent decoder") else read_config(base)


def base_folder(folder: Path) -> Path:
    """The folder that holds the weights: the folder itself, or the base of an adapter.

    Raises UserError when the base is gone, or is not what the adapter was trained on.
    """
    if not (folder / CONFIG).is_file() or (folder / "config.json").is_file():
        return folder
    named = read_adapter_config(folder).base
    base = Path(named) if Path(named).is_dir() else cached_model(named)
    if not named or base is None:
        raise UserError(
            f"The adapter in {folder} was trained on {named[:200]!r}, which is not there.",
            "Import that model, and name its folder as base_model_name_or_path in adapter_config.json.",
        )
    lineage = Checkpoint(folder, 0).lineage()
    parent = lineage.parents.get("checkpoint") if lineage else None
    if parent is not None and (base / MANIFEST).is_file() and Checkpoint(base, 0).digest() != parent.digest:
        raise UserError(f"The adapter in {folder} was trained on another model than {base} is now.")
    return base
