"""Transformer-XL's pre-training: a decoder learns to predict each next token, and remembers the segments before.

    L(θ) = − 1/T Σ_t log p_θ(x_{τ+t+1} | x_{τ..τ+t}, memory(x_{<τ}))        and the z-loss of `stages.pretrain`

The batch is read as streams: each row goes on in its stretch of the text where it stood a step ago
(`stages.data.streams`), and the memory of a row is what the model made of the segments before, without gradient. At the
end of the stretches all rows begin anew with an empty memory. All else is as in `stages.pretrain`. Source: Dai et al.,
Transformer-XL (arXiv 1901.02860), section 3.2. Shapes: L layers, B rows, M tokens remembered, C width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from stages.asking.text_to_text import follow
from stages.data.streams import Streams
from stages.data.tokenizer import TextTokenizer
from stages.generate import Sampling
from stages.models.transformer_xl import (
    Continuing,
    TransformerXL,
    load_transformer_xl,
    new_transformer_xl,
    save_transformer_xl,
)
from stages.pretrain import continued, figures, next_tokens
from stages.run import Run
from stages.store import compute
from stages.store.architecture import ModelConfig
from stages.store.specs import transformer_xl as specs
from stages.training import distributed
from stages.training.pretraining import EVALUATION_TOKENS, Models, Text, train


def run(run: Run) -> dict[str, Any]:
    """Train until the last step; what was reached."""
    return train(run, run.settings(specs.Recurrent), Recurrent)


@dataclass
class Recurrent:
    """Which token comes next, the segments before remembered."""

    model: TransformerXL
    settings: specs.Recurrent
    tokenizer: TextTokenizer
    text: Text

    models: ClassVar[Models] = Models(new_transformer_xl, load_transformer_xl)

    def __post_init__(self) -> None:
        rows = self.settings.batch_size
        self.streams = Streams(self.text.tokens.train, rows, self.model.config.context)
        self.carried = Memory(self.model, distributed.share(rows))

    @staticmethod
    def text_tokens(settings: specs.Recurrent, config: ModelConfig) -> int:
        """As many as the model reads at once."""
        return config.context

    def loss(self, step: int, rows: range) -> Tensor:
        """Their part of the loss at the head of this file on these rows' next segment, in nats.

        They remember the segment once it counts.
        """
        before = self.model.empty_memory(len(rows)) if self.streams.begins(step) else self.carried.of(rows)
        loss, after = self._read(step, rows, before)
        self.carried.note(rows, after)
        return loss * self.text.part(rows)

    def flops(self) -> float:
        """With the memory that each segment sees."""
        return compute.recurrent(self.model.config)

    def costliest(self, rows: int) -> Tensor:
        """With all of the memory that a row can have."""
        config = self.model.config
        like = self.model.tokens
        full_LBMC = torch.zeros(config.layers, rows, config.memory, config.width, dtype=like.dtype, device=like.device)
        return self._read(0, range(rows), full_LBMC)[0]

    def validate(self, blocks: int, at_once: int) -> dict[str, float]:
        """Loss in nats a token and in bits a byte, of blocks read as streams side by side, whatever fits the memory."""
        least = EVALUATION_TOKENS // self.model.config.context
        rows = min(max(self.settings.sequences_at_once, least), blocks)
        stretch, nats = -(-blocks // rows), 0.0
        for streams in np.split(np.arange(rows), range(max(at_once, least), rows, max(at_once, least))):
            memory = self.model.empty_memory(len(streams))
            for number in range(stretch):
                numbers = streams * stretch + number
                if not len(numbers := numbers[numbers < blocks]):
                    break
                asked = next_tokens(self.text.validation.gather(numbers), self.model.tokens.device)
                loss, memory = self.model(*asked, memory[:, : len(numbers)])
                nats += loss.item() * len(numbers)
        return figures(nats / blocks, self.text.tokens)

    def samples(self) -> list[dict[str, Any]]:
        """Continue the fixed prompts."""
        return continued(self.settings, self.tokenizer, self.text, self.model.config.context, self._follow)

    def write(self, folder: Path) -> None:
        """As a model type of our own."""
        save_transformer_xl(self.model, folder, eos_id=self.tokenizer.eos_id, pad_id=self.tokenizer.pad_id)

    def _read(self, step: int, rows: range, memory_LBMC: Tensor) -> tuple[Tensor, Tensor]:
        """The loss on these rows' segments, and their next memory."""
        segments = self.streams.at(step)[rows.start : rows.stop]
        asked = next_tokens(segments, self.model.tokens.device)
        loss, after_LBMC = self.model(*asked, memory_LBMC, z_loss=self.settings.z_loss)
        return loss, after_LBMC

    @torch.inference_mode()
    def _follow(self, prompts: list[list[int]], sampling: Sampling) -> list[list[int]]:
        return [follow(Continuing(self.model, [ids]), 1, sampling, ())[0] for ids in prompts]


class Memory:
    """What the rows of a batch remember of the segments before, those rows that this process computes."""

    def __init__(self, model: TransformerXL, rows: range) -> None:
        self.held_LBMC = model.empty_memory(len(rows))
        self._rows, self._next = rows, list[Tensor]()

    def of(self, rows: range) -> Tensor:
        """What these rows remember: (L, rows, M, C)."""
        return self.held_LBMC[:, rows.start - self._rows.start : rows.stop - self._rows.start]

    def note(self, rows: range, after_LBMC: Tensor) -> None:
        """What these rows will remember once the step is made. They come in order, and from the first when it is tried
        again."""
        if rows.start == self._rows.start:
            self._next = []
        self._next.append(after_LBMC)

    def keep(self) -> None:
        """The step is made."""
        self.held_LBMC, self._next = torch.cat(self._next, 1), []

    def state(self) -> dict[str, Tensor]:
        """The memory of the whole batch, for a checkpoint. All processes must come."""
        return {"memory": distributed.all_gather(self.held_LBMC, 1)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take this process's rows out of what `state` gave."""
        own = state["memory"][:, self._rows.start : self._rows.stop]
        self.held_LBMC = own.to(self.held_LBMC.device, self.held_LBMC.dtype)
