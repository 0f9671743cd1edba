"""T5's pre-training: an encoder-decoder learns to write what hidden spans of a text held.

    L(θ) = − 1/|y| Σ_t log p_θ(y_t | y_{<t}, x̃)

where x̃ is a block of text with 15 % of its tokens hidden, each hidden span behind a sentinel, and y says what the spans
held, each after its sentinel (`stages.data.corruption`). Blocks are as long as leaves `context` tokens to read; spans
are drawn anew in every epoch; all else is as in `stages.pretrain`. Source: Raffel et al., T5 (arXiv 1910.10683),
section 3.1.4, with AdamW in place of Adafactor.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stages import pretrain
from stages.asking.spans import fill_spans
from stages.data.corruption import Sentinels, corrupted, hidden_places, lengths_of, text_for
from stages.data.tokenizer import copy_tokenizer
from stages.loop import honour
from stages.models.t5 import T5, load_t5, moved_right, new_t5, save_t5
from stages.run import Run
from stages.store.architecture import ModelConfig
from stages.store.specs.t5 import SpanCorruption

SAMPLES = 3
"""Texts of validation that are filled when none are given."""
SHOWN = 24
"""Tokens of such a text."""


def run(run: Run) -> dict[str, Any]:
    """Train until the last step; what was reached."""
    job = prepare(run)
    while job.progress.step < job.settings.steps:
        honour(run, job.save, job.progress)
        loss, norm, lr = job.step()
        job.log(loss, norm, lr)
        if job.due(job.settings.checkpoint_every):
            job.save()
    job.save(whole=True)
    return job.result()


def prepare(run: Run) -> Job:
    """A run of span corruption, ready for its next step."""
    return pretrain.assemble(run, run.settings(SpanCorruption), Job, new_t5, load_t5)


@dataclass
class Job(pretrain.Job):
    """The same loop with hidden spans instead of next tokens."""

    settings: SpanCorruption
    model: T5  # type: ignore[assignment]  # the loop asks a model for a loss, and this one has it

    @classmethod
    def text_tokens(cls, settings: SpanCorruption, config: ModelConfig) -> int:
        """As many as are read as `context` tokens, once spans of them are hidden."""
        return text_for(config.context, settings.hidden_share, settings.span).text

    def __post_init__(self) -> None:
        super().__post_init__()
        self.sentinels = Sentinels.of(self.tokenizer)
        length = self.text_tokens(self.settings, self.model.config)
        self.lengths = lengths_of(length, self.settings.hidden_share, self.settings.span)
        self.sentinels.check(self.lengths)
        self._fixed: torch.Generator | None = None
        for text in self.settings.sample_prompts:
            fill_spans(self.model, self.tokenizer, text, 1)  # one that cannot be filled is refused before training

    @torch.no_grad()
    def evaluate(self, *, whole: bool) -> dict[str, float]:
        """Loss in nats a token written, on validation; always the same spans."""
        self._fixed = torch.Generator().manual_seed(0)
        found = super().evaluate(whole=whole)
        self._fixed = None
        self.metrics = {"val/loss": found["val/loss"]}
        return self.metrics

    def sample(self) -> None:
        """Fill the fixed texts' blanks, so that answers can be compared over time."""
        self.model.eval()
        for text in self.settings.sample_prompts or self._validation_texts():
            filled = fill_spans(self.model, self.tokenizer, text, 1)
            self.run.sample(self.progress.step, prompt=f"{text}\n", text=filled.text)

    def _validation_texts(self) -> list[str]:
        """Beginnings of validation blocks, each with one span hidden."""
        texts = []
        for block in self.validation.in_order(0, SAMPLES):
            ids = block[: min(SHOWN, self.model.config.context // 2)].tolist()
            gap = len(ids) // 2
            after = gap + min(len(ids) - gap, round(self.settings.span))
            texts.append(f"{self.tokenizer.decode(ids[:gap])} ___ {self.tokenizer.decode(ids[after:])}")
        return texts

    def _write_model(self, folder: Path) -> None:
        save_t5(self.model, folder, pad_id=self.tokenizer.pad_id, eos_id=self.tokenizer.eos_id)
        copy_tokenizer(self.tokenizer, folder)

    def _batch(self, blocks: Any) -> tuple[Tensor, ...]:
        """What is read (B, S), what the decoder reads (B, T), and what it is to write (B, T), of blocks (B, L + 1)."""
        tokens_BL = torch.from_numpy(blocks)[:, :-1]
        hidden_BL = hidden_places(len(tokens_BL), self.lengths, self._fixed)
        read_BS, targets_BT = corrupted(tokens_BL, hidden_BL, self.sentinels)
        written_BT = moved_right(targets_BT, self.tokenizer.pad_id)
        return tuple(each.to(self.device, non_blocking=True) for each in (read_BS, written_BT, targets_BT))
