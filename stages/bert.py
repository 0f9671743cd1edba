"""BERT's pre-training: an encoder learns to say what stands behind the masks, from both sides of them.

    L(θ) = − 1/|M| Σ_{t ∈ M} log p_θ(x_t | x̃)        and the z-loss of `stages.pretrain`, if asked for

where M is the share of a text x that is asked about, and x̃ is x with [MASK], a random token or the token itself in
those places (`stages.data.bert_masks`). Blocks of a text stand between [CLS] and [SEP]. There is no next-sentence task,
which later work found to be of no use (Liu et al., RoBERTa, arXiv 1907.11692). Masks are drawn anew in every epoch.
Source: Devlin et al., BERT (arXiv 1810.04805). Shapes: B texts, T tokens of a text, M asked about, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.asking.fill import fill_text
from stages.data.bert_masks import Blanks, masked
from stages.data.tokenizer import TextTokenizer
from stages.models.encoder import Encoder, load_encoder, new_encoder, save_encoder
from stages.models.loss import IGNORED
from stages.run import Run
from stages.store import compute
from stages.store.architecture import ModelConfig
from stages.store.specs.bert import Bert
from stages.training.pretraining import Models, Text, train

SAMPLES = 3
"""Texts of validation that are filled when none are given."""
SHOWN = 24
"""Tokens of such a text."""


def run(run: Run) -> dict[str, Any]:
    """Train until the last step; what was reached."""
    return train(run, run.settings(Bert), Masked)


class Batch(NamedTuple):
    """What the model sees and what it is asked (B, T), of all rows of the step after `step` steps."""

    step: int
    seen: Tensor
    targets: Tensor


@dataclass
class Masked:
    """What stands behind the masks."""

    model: Encoder
    settings: Bert
    tokenizer: TextTokenizer
    text: Text

    models: ClassVar[Models] = Models(new_encoder, load_encoder)
    carried: ClassVar[None] = None

    def __post_init__(self) -> None:
        self.batch: Batch | None = None
        self.blanks = Blanks.of(self.tokenizer)
        for text in self.settings.sample_prompts:
            fill_text(self.model, self.tokenizer, text)  # one that cannot be filled is refused before training

    @staticmethod
    def text_tokens(settings: Bert, config: ModelConfig) -> int:
        """All but the tokens that begin and end a text."""
        return config.context - 2

    def loss(self, step: int, rows: range) -> Tensor:
        """These rows' part of the loss at the head of this file on a step's batch, in nats."""
        if self.batch is None or self.batch.step != step:
            self.batch = Batch(step, *self._asked(*self.text.whole_batch(step)))
        asked_BT = self.batch.targets != IGNORED
        here = slice(rows.start, rows.stop)
        loss: Tensor = self.model(self.batch.seen[here], self.batch.targets[here], z_loss=self.settings.z_loss)
        return loss * (asked_BT[here].sum() / asked_BT.sum().clamp(min=1))

    def flops(self) -> float:
        """Logits are of the masked places alone."""
        return compute.training(self.model.config, self.model.config.context, self.settings.mask_share)

    def costliest(self, rows: int) -> Tensor:
        """All rows are of one length, and as good as equally many of their tokens are asked about."""
        return self.loss(0, range(rows))

    def validate(self, blocks: int, at_once: int) -> dict[str, float]:
        """Loss in nats a masked token, and how often the likeliest is right. The masks are drawn as for a batch."""
        always = torch.Generator().manual_seed(0)
        nats = right = asked = 0.0
        for part in self.text.validated(blocks, self.settings.sequences_at_once):
            both = (tensor.split(at_once) for tensor in self._asked(part, always))
            for seen_BT, targets_BT in zip(*both, strict=True):
                targets_N = targets_BT.reshape(-1)
                places_M = torch.nonzero(targets_N != IGNORED)[:, 0]
                log_p_MV = self.model.logits(self.model.hidden_states(seen_BT)[places_M]).float().log_softmax(-1)
                wanted_M = targets_N[places_M]
                nats -= log_p_MV.gather(1, wanted_M[:, None]).sum().item()
                right += (log_p_MV.argmax(-1) == wanted_M).sum().item()
                asked += len(wanted_M)
        return {"val/loss": nats / max(1.0, asked), "val/accuracy": right / max(1.0, asked)}

    def samples(self) -> list[dict[str, Any]]:
        """Fill the fixed texts' blanks."""
        texts = self.settings.sample_prompts or self._validation_texts()
        return [{"prompt": f"{text}\n", "text": fill_text(self.model, self.tokenizer, text).text} for text in texts]

    def write(self, folder: Path) -> None:
        """As transformers opens it."""
        save_encoder(self.model, folder, pad_id=self.tokenizer.pad_id)

    def _asked(self, blocks: NDArray[Any], generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """What the model sees and what it is asked, (B, T), of blocks (B, T − 1)."""
        tokens_BT = self.blanks.framed(torch.from_numpy(blocks)[:, :-1])
        seen_BT, targets_BT = masked(
            tokens_BT,
            self.blanks,
            share=self.settings.mask_share,
            recipe=self.settings.masks,
            whole_words=self.settings.whole_words,
            generator=generator,
        )
        device = self.model.tokens.device
        return seen_BT.to(device, non_blocking=True), targets_BT.to(device, non_blocking=True)

    def _validation_texts(self) -> list[str]:
        """Beginnings of validation blocks, each with one masked token."""
        texts = []
        for block in self.text.validation.in_order(0, SAMPLES):
            room = min(SHOWN, self.model.config.context // 2)  # words cut at the edges may take more tokens
            ids = block[:room].tolist()
            blank = next((n for n in range(len(ids) // 2, len(ids)) if ids[n] not in self.tokenizer.special_ids), None)
            if blank is not None:
                before, after = self.tokenizer.decode(ids[:blank]), self.tokenizer.decode(ids[blank + 1 :])
                texts.append(f"{before} [MASK] {after}")
        return texts
