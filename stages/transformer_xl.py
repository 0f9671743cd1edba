"""Transformer-XL's pre-training: a decoder learns to predict each next token, and remembers the segments before.

    L(θ) = − 1/T Σ_t log p_θ(x_{τ+t+1} | x_{τ..τ+t}, memory(x_{<τ}))

The batch is read as streams: each row goes on in its stretch of the text where it stood a step ago
(`stages.data.streams`), and the memory of a row is what the model made of the segments before, without gradient. At the
end of the stretches all rows begin anew with an empty memory. All else is as in `stages.pretrain`. Source: Dai et al.,
Transformer-XL (arXiv 1901.02860), section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stages import pretrain
from stages.asking.text_to_text import follow
from stages.data.streams import Streams
from stages.data.tokenizer import copy_tokenizer
from stages.generate import Sampling
from stages.loop import any_algorithms, honour, read_state
from stages.models.transformer_xl import (
    Continuing,
    TransformerXL,
    load_transformer_xl,
    new_transformer_xl,
    save_transformer_xl,
)
from stages.run import Run
from stages.store.checkpoints import Checkpoint
from stages.store.specs.transformer_xl import Recurrent
from stages.training import distributed


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
    """A run of next-token prediction with a memory, ready for its next step."""
    job = pretrain.assemble(run, run.settings(Recurrent), Job, new_transformer_xl, load_transformer_xl)
    if job.progress.step:
        name = f"step-{job.progress.step}"
        held = read_state(Checkpoint(run.dir.checkpoints / name, job.progress.step))["memory"]
        job.memory = held[:, job.rows.start : job.rows.stop].to(job.device, job.memory.dtype)
    return job


@dataclass
class Job(pretrain.Job):
    """The same loop over streams in place of shuffled blocks."""

    settings: Recurrent
    model: TransformerXL  # type: ignore[assignment]  # the loop asks a model for a loss, and this one has it

    def __post_init__(self) -> None:
        super().__post_init__()
        rows = self.settings.batch_size
        self.streams = Streams(self.tokens.train, rows, self.model.config.context)
        self.rows = distributed.share(rows)
        self.memory = self.model.empty_memory(len(self.rows))
        self._next: list[Tensor] = []

    def _train_loss(self, start: int, count: int) -> Tensor:
        step, own = self.progress.step, self.rows
        if start == own.start:
            self._next = []
            if self.streams.begins(step):
                self.memory = self.model.empty_memory(len(own))
        inputs_BT, targets_BT = self._batch(self.streams.at(step)[start : start + count])
        loss, kept = self.model(inputs_BT, targets_BT, self.memory[:, start - own.start : start - own.start + count])
        self._next.append(kept)
        if start + count == own.stop:
            self.memory = torch.cat(self._next, 1)
        found: Tensor = loss
        return found

    @torch.no_grad()
    def _validation_nats(self, count: int, together: int) -> float:
        """The sum of the mean losses of the first `count` blocks, read as up to `together` streams side by side."""
        rows = min(together, count)
        stretch = -(-count // rows)
        memory, total = self.model.empty_memory(rows), 0.0
        for number in range(stretch):
            blocks = np.arange(rows) * stretch + number
            blocks = blocks[blocks < count]
            inputs_BT, targets_BT = self._batch(self.validation.gather(blocks))
            loss, memory = self.model(inputs_BT, targets_BT, memory[:, : len(blocks)])
            total += loss.item() * len(blocks)
        return total

    @torch.inference_mode()
    def _continued(self, prompts: list[list[int]], sampling: Sampling) -> list[list[int]]:
        with any_algorithms():
            return [follow(Continuing(self.model, [ids]), 1, sampling, ())[0] for ids in prompts]

    def _state(self) -> dict[str, Tensor]:
        return {"memory": distributed.side_by_side(self.memory, 1)}

    def _write_model(self, folder: Path) -> None:
        save_transformer_xl(self.model, folder, eos_id=self.tokenizer.eos_id, pad_id=self.tokenizer.pad_id)
        copy_tokenizer(self.tokenizer, folder)
