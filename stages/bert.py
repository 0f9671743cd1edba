"""BERT's pre-training: an encoder learns to say what stands behind the masks, from both sides of them.

    L(θ) = − 1/|M| Σ_{t ∈ M} log p_θ(x_t | x̃)

where M is the share of a text x that is asked about, and x̃ is x with [MASK], a random token or the token itself in
those places (`stages.data.masking`). Blocks of a text stand between [CLS] and [SEP]. There is no next-sentence task,
which later work found to be of no use (Liu et al., RoBERTa, arXiv 1907.11692). Masks are drawn anew in every epoch; all
else is as in `stages.pretrain`. Source: Devlin et al., BERT (arXiv 1810.04805).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stages import pretrain
from stages.asking.fill import fill_text
from stages.data.masking import Blanks, masked
from stages.data.tokenizer import copy_tokenizer
from stages.loop import honour
from stages.models.encoder import Encoder, load_encoder, new_encoder, save_encoder
from stages.models.loss import IGNORED
from stages.run import Run
from stages.store.architecture import ModelConfig
from stages.store.specs.bert import Bert

SAMPLES = 3
"""Texts of validation that are filled when none are given."""


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
    """A run of masked-token prediction, ready for its next step."""
    return pretrain.assemble(run, run.settings(Bert), Job, new_encoder, load_encoder)


@dataclass
class Job(pretrain.Job):
    """The same loop with masks instead of next tokens."""

    settings: Bert
    model: Encoder  # type: ignore[assignment]  # the loop asks a model for a loss, and this one has it

    @classmethod
    def text_tokens(cls, settings: Bert, config: ModelConfig) -> int:
        """All but the tokens that begin and end a text."""
        return config.context - 2

    def __post_init__(self) -> None:
        super().__post_init__()
        self.blanks = Blanks.of(self.tokenizer)
        self._fixed: torch.Generator | None = None
        for text in self.settings.sample_prompts:
            fill_text(self.model, self.tokenizer, text)  # one that cannot be filled is refused before training

    @torch.no_grad()
    def evaluate(self, *, whole: bool) -> dict[str, float]:
        """Loss in nats a masked token of validation, and how often the likeliest is right; always the same masks."""
        self.model.eval()
        count = len(self.validation)
        if not whole:
            count = min(count, max(1, self.settings.eval_tokens // self.model.config.context))
        self._fixed = torch.Generator().manual_seed(0)
        nats = right = asked = 0.0
        for start in range(0, count, self.micro_batch):
            seen_BT, targets_BT = self._batch(self.validation.in_order(start, min(self.micro_batch, count - start)))
            targets_N = targets_BT.reshape(-1)
            places_M = torch.nonzero(targets_N != IGNORED)[:, 0]
            log_p_MV = self.model.logits(self.model.hidden_states(seen_BT)[places_M]).float().log_softmax(-1)
            wanted_M = targets_N[places_M]
            nats -= log_p_MV.gather(1, wanted_M[:, None]).sum().item()
            right += (log_p_MV.argmax(-1) == wanted_M).sum().item()
            asked += len(wanted_M)
        self._fixed = None
        self.divergence.watch_validation(self.progress.step, nats / max(1.0, asked))
        self._last_evaluation = self.progress.step
        self.metrics = {"val/loss": nats / max(1.0, asked), "val/accuracy": right / max(1.0, asked)}
        return self.metrics

    def sample(self) -> None:
        """Fill the fixed texts' blanks, so that answers can be compared over time."""
        self.model.eval()
        for text in self.settings.sample_prompts or self._validation_texts():
            filled = fill_text(self.model, self.tokenizer, text)
            self.run.sample(self.progress.step, prompt=f"{text}\n", text=filled.text)

    def _validation_texts(self) -> list[str]:
        """Beginnings of validation blocks, each with one masked token."""
        texts = []
        for block in self.validation.in_order(0, SAMPLES):
            ids = block[
                : min(24, self.model.config.context // 2)
            ].tolist()  # words cut at the edges may take more tokens
            blank = next((n for n in range(len(ids) // 2, len(ids)) if ids[n] not in self.tokenizer.special_ids), None)
            if blank is not None:
                before, after = self.tokenizer.decode(ids[:blank]), self.tokenizer.decode(ids[blank + 1 :])
                texts.append(f"{before} [MASK] {after}")
        return texts

    def _write_model(self, folder: Path) -> None:
        save_encoder(self.model, folder, pad_id=self.tokenizer.pad_id)
        copy_tokenizer(self.tokenizer, folder)

    def _batch(self, blocks: Any) -> tuple[Tensor, ...]:
        """What the model sees and what it is asked, (B, T), of blocks (B, T − 1)."""
        tokens_BT = self.blanks.framed(torch.from_numpy(blocks)[:, :-1])
        seen_BT, targets_BT = masked(
            tokens_BT,
            self.blanks,
            share=self.settings.mask_share,
            recipe=self.settings.masks,
            whole_words=self.settings.whole_words,
            generator=self._fixed,
        )
        return seen_BT.to(self.device, non_blocking=True), targets_BT.to(self.device, non_blocking=True)
