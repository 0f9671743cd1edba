"""A policy that GRPO or PPO improves on its own completions: what a step of theirs has in common.

A step draws completions of some prompts (rollouts), has them scored, and makes updates whose loss weighs each token's
log-probability by an advantage, clipped where the policy has moved away from the one that wrote it
(`stages.policies.surrogate`). No dropout anywhere: the first update's ratio must be 1. What happens between the steps
stands in `stages.policies.course`.

Of several processes each writes, scores and computes its share of the completions. What they find is put together in
all of them, so that advantages, figures and what follows from them are those of the whole step.

Shapes: B completions, T tokens of prompt and completion less one, as in `stages.policies.rollouts`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.data.order import permute
from stages.models.decoder import Decoder
from stages.models.logprobs import token_logprobs, token_logprobs_and_entropy
from stages.models.lora import without_lora
from stages.models.loss import IGNORED
from stages.optim import AdamW
from stages.policies.kl import k1
from stages.policies.progress import PolicyProgress
from stages.policies.rollouts import Prompts, Rollouts, Writer, seeds_of
from stages.policies.scoring import Response, Score
from stages.store.compute import Answers
from stages.store.errors import WorkFailed
from stages.store.specs.policy import PolicyGradient as Settings
from stages.training import distributed
from stages.training.updates import MicroBatches

WITHOUT_GRADIENT = 4
"""Micro-batches that are computed together where no gradient is: nothing is kept for a backward pass."""


class Reference:
    """The frozen model that the policy is held near: another one, or a policy with adapters without them."""

    def __init__(self, model: Decoder, *, bare: bool = False) -> None:
        self.model, self._bare = model, bare

    @torch.no_grad()
    def logprobs(self, inputs_BT: Tensor, targets_BT: Tensor, temperature: float) -> Tensor:
        """log p of each target, 0 where there is none: (B, T) fp32."""
        with without_lora(self.model) if self._bare else contextlib.nullcontext():
            return token_logprobs(self.model, inputs_BT, targets_BT, temperature=temperature)


class Likelihoods(NamedTuple):
    """What the policy and its reference think of rollouts, before any update: (B, T) each, 0 where no target is."""

    logprobs: Tensor
    entropy: Tensor
    reference: Tensor


@dataclass
class Policy:
    """A policy with all that a step needs of it."""

    settings: Settings
    model: Decoder
    optimizer: AdamW
    reference: Reference
    prompts: Prompts
    writer: Writer
    score: Score
    progress: PolicyProgress
    micro: MicroBatches
    group: int
    """Completions of each prompt."""

    @property
    def answers(self) -> Answers:
        """How long prompts and completions are."""
        asked = self.prompts.asked
        return Answers(sum(len(each.tokens) for each in asked) / len(asked), self.settings.max_new_tokens)

    def roll(self, count: int) -> Rollouts:
        """Completions of the next `count` prompts, `group` of each, one group after the other."""
        prompts = self.prompts.order(self.progress.asked, count, self.settings.seed)
        asked = [each for each in prompts for _ in range(self.group)]
        seeds = seeds_of(self.settings.seed, self.progress.drawn, len(asked))
        self.progress.asked += len(prompts)
        self.progress.drawn += len(asked)
        rollouts = self.writer.write(self.model, asked, seeds, self.settings.temperature)
        self.progress.tokens_drawn += rollouts.tokens
        return rollouts

    def scores(self, rollouts: Rollouts) -> list[float]:
        """What the scorer makes of each."""
        parts = zip(rollouts.asked, rollouts.texts, rollouts.completions, strict=True)
        said = [Response(asked.prompt, text, tokens, [*asked.tokens, *tokens]) for asked, text, tokens in parts]
        mine = distributed.share(len(said))
        found = distributed.all_gather_list(self.score(said[mine.start : mine.stop]))
        if not all(map(math.isfinite, found)):
            raise WorkFailed(f"A reward at step {self.progress.step + 1} is no finite number.")
        return found

    def penalties(self, rollouts: Rollouts) -> NDArray[np.float32]:
        """What is taken from the reward of each that did not come to an end: (B,)."""
        return np.array([0.0 if ended else self.settings.missing_end_penalty for ended in rollouts.ended], np.float32)

    @torch.no_grad()
    def likelihoods(self, rollouts: Rollouts) -> Likelihoods:
        """Log-probabilities by policy and reference, and the policy's entropy."""
        temperature = self.settings.temperature
        with distributed.whole(self.model):
            mine = self.in_parts(
                rollouts,
                2,
                lambda x, y: torch.stack(token_logprobs_and_entropy(self.model, x, y, temperature=temperature)),
            )
        return Likelihoods(mine[0], mine[1], self.by_reference(rollouts))

    def by_reference(self, rollouts: Rollouts) -> Tensor:
        """Log-probabilities by the reference (B, T)."""
        temperature = self.settings.temperature
        with distributed.whole(self.reference.model):
            return self.in_parts(rollouts, 1, lambda x, y: self.reference.logprobs(x, y, temperature)[None])[0]

    def in_parts(self, rollouts: Rollouts, count: int, figures: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """figures(inputs, targets) (count, b, t) of some rollouts at a time, for all: (count, B, T) fp32, 0 beyond."""
        found = torch.zeros(count, *rollouts.targets.shape, device=rollouts.targets.device)
        for rows, inputs, targets in self.parts(rollouts, np.arange(len(rollouts)), WITHOUT_GRADIENT):
            found[:, rows, : inputs.shape[1]] = figures(inputs, targets)
        distributed.all_reduce_sum(found)  # each row is 0 but in the process that has computed it
        return found

    def parts(
        self, rollouts: Rollouts, rows: NDArray[np.int64], times: int = 1
    ) -> Iterator[tuple[NDArray[np.int64], Tensor, Tensor]]:
        """This process's share of these rows, `times` as many as a micro-batch at once.

        With their inputs and targets, cut to the longest of them.
        """
        mine, at_once = distributed.share(len(rows)), self.micro.rows * times
        for part in (rows[start : min(start + at_once, mine.stop)] for start in mine[::at_once]):
            width = rollouts.width(part)
            yield part, rollouts.inputs[part, :width], rollouts.targets[part, :width]

    def minibatches(self, count: int) -> Iterator[NDArray[np.int64]]:
        """Rows of each update of a step: every pass in an order of its own, which follows from seed and step."""
        for number in range(self.settings.passes):
            epoch = self.progress.step * self.settings.passes + number
            order = permute(np.arange(count, dtype=np.uint64), count, self.settings.seed, epoch)
            yield from (part for part in np.array_split(order, self.settings.minibatches) if len(part))

    def measures(self, rollouts: Rollouts, seen: Likelihoods) -> dict[str, float]:
        """Figures of rollouts by the policy that wrote them. KL in nats, estimated by k1."""
        mask = rollouts.mask
        kl_BT, count = k1(seen.logprobs, seen.reference) * mask, mask.sum()
        kl, kl_token, entropy = torch.stack(
            (kl_BT.sum(1).mean(), kl_BT.sum() / count, (seen.entropy * mask).sum() / count)
        ).tolist()
        return {
            "policy/kl": kl,
            "policy/kl_token": kl_token,
            "policy/entropy": entropy,
            "policy/length": rollouts.mean_length,
            "policy/ended": sum(rollouts.ended) / len(rollouts),
        }

    def try_memory(self, loss: Callable[[Tensor, Tensor], Tensor], beside: Sequence[AdamW] = ()) -> None:
        """Try the longest rollouts that there can be.

        loss: of inputs and targets (b, t). beside: optimisers of further models that it trains.
        """
        longest = self.prompts.longest + self.settings.max_new_tokens - 1

        def loss_of(count: int) -> Tensor:
            inputs = torch.full((count, longest), self.writer.tokenizer.pad_id, device=self.model.tokens.device)
            inputs[:, 0] = torch.arange(count) % self.model.config.vocab_size  # no two share a prompt
            targets = torch.full_like(inputs, self.writer.tokenizer.eos_id)
            targets[:, : longest - self.settings.max_new_tokens] = IGNORED
            return loss(inputs, targets)

        self.micro.choose(self.model, self.optimizer, loss_of, beside)
