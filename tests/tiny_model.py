"""A random model of a few thousand parameters with a byte tokenizer, as a checkpoint folder."""

from __future__ import annotations

from pathlib import Path

import msgspec

from stages.data.tokenizer import TextTokenizer, save_tokenizer, train_tokenizer
from stages.models.decoder import new_decoder
from stages.models.hf import save_weights
from stages.models.value import new_value_model, save_value_model
from stages.store.checkpoints import Lineage, write_checkpoint
from stages.store.presets import ModelConfig


def write_tiny_checkpoint(
    final: Path, *, context: int = 64, seed: int = 0, name: str = "tiny", step: int = 0, template: str | None = None
) -> Path:
    """Write the checkpoint to `final` and return it. With a chat template it is a chat model."""
    config = ModelConfig(layers=1, heads=2, width=16, context=context, vocab_size=260)

    def fill(folder: Path) -> None:
        save_weights(new_decoder(config, seed), folder)
        save_tokenizer(train_tokenizer([], "byte", 260, split_digits=False), folder)
        if template is not None:
            (folder / "chat_template.jinja").write_text(template)
        lineage = Lineage(stage="pretrain", run="r", name=name, step=step)
        (folder / "workbench.json").write_bytes(msgspec.json.encode(lineage))

    return write_checkpoint(final, fill).path


def write_tiny_judge(final: Path, *, context: int = 96, seed: int = 0) -> Path:
    """A reward model of the same size with the same tokenizer, as a checkpoint at `final`."""
    config = ModelConfig(layers=1, heads=2, width=16, context=context, vocab_size=260)
    tokenizer = train_tokenizer([], "byte", 260, split_digits=False)

    def fill(folder: Path) -> None:
        save_tokenizer(tokenizer, folder)
        pad_id = TextTokenizer.load(folder).pad_id
        save_value_model(new_value_model(new_decoder(config, seed), seed), folder, pad_id=pad_id)

    return write_checkpoint(final, fill).path
