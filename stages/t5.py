"""T5's pre-training: an encoder-decoder learns to write what hidden spans of a text held.

    L(θ) = − 1/|y| Σ_t log p_θ(y_t | y_{<t}, x̃)        and the z-loss of `stages.pretrain`, if asked for

where x̃ is a block of text with 15 % of its tokens hidden, each hidden span behind a sentinel, and y says what the spans
held, each after its sentinel (`stages.data.corruption`). Blocks are as long as leaves `context` tokens to read; spans
are drawn anew in every epoch. Source: Raffel et al., T5 (arXiv 1910.10683), section 3.1.4, with AdamW in place of
Adafactor. Shapes: B texts, L tokens of a text, S that are read of it, T that are written.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.asking.spans import fill_spans
from stages.data.corruption import Sentinels, corrupted, hidden_places, lengths_of, text_for
from stages.data.tokenizer import TextTokenizer
from stages.models.t5 import T5, load_t5, moved_right, new_t5, save_t5
from stages.run import Run
from stages.store import compute
from stages.store.architecture import ModelConfig
from stages.store.specs import t5 as specs
from stages.training.pretraining import EVALUATION_TOKENS, Models, Text, train

SAMPLES = 3
"""Texts of validation that are filled when none are given."""
SHOWN = 24
"""Tokens of such a text."""


def run(run: Run) -> dict[str, Any]:
    """Train until the last step; what was reached."""
    return train(run, run.settings(specs.SpanCorruption), SpanCorruption)


class Batch(NamedTuple):
    """What is asked, as `SpanCorruption._asked` gives it, of all rows of the step after `step` steps."""

    step: int
    asked: tuple[Tensor, ...]


@dataclass
class SpanCorruption:
    """What the hidden spans held."""

    model: T5
    settings: specs.SpanCorruption
    tokenizer: TextTokenizer
    text: Text

    models: ClassVar[Models] = Models(new_t5, load_t5)
    carried: ClassVar[None] = None

    def __post_init__(self) -> None:
        self.batch: Batch | None = None
        self.sentinels = Sentinels.of(self.tokenizer)
        self.lengths = lengths_of(self.text.length, self.settings.hidden_share, self.settings.span)
        self.sentinels.check(self.lengths)
        for text in self.settings.sample_prompts:
            fill_spans(self.model, self.tokenizer, text, 1)  # one that cannot be filled is refused before training

    @staticmethod
    def text_tokens(settings: specs.SpanCorruption, config: ModelConfig) -> int:
        """As many as are read as `context` tokens, once spans of them are hidden."""
        return text_for(config.context, settings.hidden_share, settings.span).text

    def loss(self, step: int, rows: range) -> Tensor:
        """These rows' part of the loss at the head of this file on a step's batch, in nats."""
        if self.batch is None or self.batch.step != step:
            self.batch = Batch(step, self._asked(*self.text.whole_batch(step)))
        here = slice(rows.start, rows.stop)
        loss: Tensor = self.model(*(each[here] for each in self.batch.asked), z_loss=self.settings.z_loss)
        return loss * self.text.part(rows)

    def flops(self) -> float:
        """Those of a row, read and written, for each of its `context` tokens."""
        return compute.pair(self.model.config, self.lengths.read, self.lengths.written) / self.model.config.context

    def costliest(self, rows: int) -> Tensor:
        """All rows are of one length, read and written."""
        return self.loss(0, range(rows))

    def validate(self, blocks: int, at_once: int) -> dict[str, float]:
        """Loss in nats a token written. The spans are drawn for as many texts together, whatever fits the memory."""
        always, least = torch.Generator().manual_seed(0), EVALUATION_TOKENS // self.model.config.context
        nats = 0.0
        for part in self.text.validated(blocks, max(self.settings.sequences_at_once, least)):
            asked = (tensor.split(max(at_once, least)) for tensor in self._asked(part, always))
            for read_BS, written_BT, targets_BT in zip(*asked, strict=True):
                nats += self.model(read_BS, written_BT, targets_BT).item() * len(read_BS)
        return {"val/loss": nats / blocks}

    def samples(self) -> list[dict[str, Any]]:
        """Fill the fixed texts' blanks."""
        texts = self.settings.sample_prompts or self._validation_texts()
        return [{"prompt": f"{text}\n", "text": fill_spans(self.model, self.tokenizer, text, 1).text} for text in texts]

    def write(self, folder: Path) -> None:
        """As transformers opens it."""
        save_t5(self.model, folder, pad_id=self.tokenizer.pad_id, eos_id=self.tokenizer.eos_id)

    def _asked(self, blocks: NDArray[Any], generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """What is read (B, S), what the decoder reads (B, T), and what it is to write (B, T), of blocks (B, L + 1)."""
        tokens_BL = torch.from_numpy(blocks)[:, :-1]
        hidden_BL = hidden_places(len(tokens_BL), self.lengths, generator)
        read_BS, targets_BT = corrupted(tokens_BL, hidden_BL, self.sentinels)
        written_BT = moved_right(targets_BT, self.tokenizer.pad_id)
        device = self.model.tokens.device
        return tuple(each.to(device, non_blocking=True) for each in (read_BS, written_BT, targets_BT))

    def _validation_texts(self) -> list[str]:
        """Beginnings of validation blocks, each with one span hidden."""
        texts = []
        for block in self.text.validation.in_order(0, SAMPLES):
            ids = block[: min(SHOWN, self.model.config.context // 2)].tolist()
            gap = len(ids) // 2
            after = gap + min(len(ids) - gap, round(self.settings.span))
            texts.append(f"{self.tokenizer.decode(ids[:gap])} ___ {self.tokenizer.decode(ids[after:])}")
        return texts
