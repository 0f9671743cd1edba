"""Pre-training: a decoder learns to predict each next token of a text.

    L(θ) = 1/|B| Σ_{x ∈ B} 1/T Σ_{t=1..T} [ − log p_θ(x_{t+1} | x_{≤t}) + ζ log² Z_t ]

over blocks of T + 1 tokens, documents joined by the end-of-text token. Z_t = Σ_v exp(logit_v), and ζ is the setting
z_loss, 0 unless asked for: it keeps logits from drifting, and validation is without it. One step adds the gradients of
its micro-batches, clips their norm, and makes one AdamW update with a warm-up and cosine schedule
(`stages.training.pretraining`). Source: Radford et al., Language Models are Unsupervised Multitask Learners (2019);
clipping, warm-up and cosine as for GPT-3 (arXiv 2005.14165, B), β₂ of 0.99 as nanoGPT has it for small models; log² Z
as in PaLM (Chowdhery et al., arXiv 2204.02311, section 5), where ζ is 10⁻⁴.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.data.blocks import TokenSet
from stages.data.tokenizer import TextTokenizer
from stages.generate import Sampling, generate
from stages.loop import any_algorithms
from stages.models.decoder import Decoder, new_decoder
from stages.models.hf import load_model, save_weights
from stages.run import Run
from stages.store import compute
from stages.store.architecture import ModelConfig
from stages.store.specs.pretrain import Pretrain
from stages.training.pretraining import EVALUATION_TOKENS, Models, Text, train

PROMPT_TOKENS = 16
"""Length of the prompt that is taken from the validation text when none is given."""


def run(run: Run) -> dict[str, Any]:
    """Train until the last step; what was reached."""
    return train(run, run.settings(Pretrain), NextToken)


@dataclass
class NextToken:
    """Which token comes next."""

    model: Decoder
    settings: Pretrain
    tokenizer: TextTokenizer
    text: Text

    models: ClassVar[Models] = Models(new_decoder, load_model)
    carried: ClassVar[None] = None

    @staticmethod
    def text_tokens(settings: Pretrain, config: ModelConfig) -> int:
        """As many as the model sees at once."""
        return config.context

    def loss(self, step: int, rows: range) -> Tensor:
        """These rows' part of the loss at the head of this file on a step's batch, in nats."""
        return self._loss(self.text.batch(step, rows), self.settings.z_loss) * self.text.part(rows)

    def flops(self) -> float:
        """All go forward and backward through all weights, in blocks as long as the context."""
        return compute.training(self.model.config, self.model.config.context)

    def costliest(self, rows: int) -> Tensor:
        """All rows are of one length."""
        return self.loss(0, range(rows))

    def validate(self, blocks: int, at_once: int) -> dict[str, float]:
        """Loss in nats a token, and in bits a byte of text."""
        nats = 0.0
        for part in self.text.validated(blocks, max(at_once, EVALUATION_TOKENS // self.text.length)):
            nats += self._loss(part).item() * len(part)
        return figures(nats / blocks, self.text.tokens)

    def samples(self) -> list[dict[str, Any]]:
        """Continue the fixed prompts."""
        context = self.model.config.context
        return continued(self.settings, self.tokenizer, self.text, context, lambda *asked: generate(self.model, *asked))

    def write(self, folder: Path) -> None:
        """As transformers opens it."""
        save_weights(self.model, folder, eos_id=self.tokenizer.eos_id, pad_id=self.tokenizer.pad_id)

    def _loss(self, blocks: NDArray[Any], z_loss: float = 0.0) -> Tensor:
        loss: Tensor = self.model(*next_tokens(blocks, self.model.tokens.device), z_loss=z_loss)
        return loss


def next_tokens(blocks: NDArray[Any], device: torch.device) -> tuple[Tensor, Tensor]:
    """Inputs and targets (B, T) of blocks (B, T + 1)."""
    tokens = torch.from_numpy(blocks).to(device, non_blocking=True)
    return tokens[:, :-1], tokens[:, 1:]


def figures(nats: float, tokens: TokenSet) -> dict[str, float]:
    """A validation loss in nats a token, as it is and in bits a byte of the validation text."""
    tokens_per_byte = len(tokens.val) / tokens.val_bytes
    return {"val/loss": nats, "val/bits_per_byte": nats * tokens_per_byte / math.log(2)}


def continued(
    settings: Pretrain,
    tokenizer: TextTokenizer,
    text: Text,
    context: int,
    write: Callable[[list[list[int]], Sampling], list[list[int]]],
) -> list[dict[str, Any]]:
    """What `write` puts after the fixed prompts, or after the start of validation, as rows of samples.

    Always with the same random numbers. Half of the context is left for what is written.
    """
    prompts = settings.sample_prompts or [tokenizer.decode(text.tokens.val[:PROMPT_TOKENS].tolist())]
    room = context // 2
    ids = [tokenizer.encode(prompt)[-room:] or [tokenizer.eos_id] for prompt in prompts]
    sampling = Sampling(temperature=0.8, top_k=50, max_new_tokens=settings.sample_tokens, seed=0)
    with any_algorithms():
        written = write(ids, sampling)
    return [
        {"prompt": prompt, "text": tokenizer.decode(completion), "tokens": len(completion)}
        for prompt, completion in zip(prompts, written, strict=True)
    ]
