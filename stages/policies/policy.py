"""What the stages share that improve a policy on its own completions: GRPO and PPO.

A step draws completions of some prompts (rollouts), has them scored, and makes updates whose loss weighs each token's
log-probability by an advantage, clipped where the policy has moved away from the one that wrote it
(`stages.policies.surrogate`). No dropout anywhere: the first update's ratio must be 1.

Shapes: B completions, T tokens of prompt and completion less one, as in `stages.policies.rollouts`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.data.order import permute
from stages.data.tokenizer import TextTokenizer
from stages.loop import Pace, log_interval, save_checkpoint
from stages.models.decoder import Decoder
from stages.models.logprobs import token_logprobs, token_logprobs_and_entropy
from stages.models.lora import without_lora
from stages.models.loss import IGNORED
from stages.optim import AdamW
from stages.policies.alarms import Alarms
from stages.policies.kl import k1
from stages.policies.progress import PolicyProgress
from stages.policies.rollouts import Prompts, Rollouts, Writer, seeds_of
from stages.policies.scoring import Said, Score
from stages.run import Run
from stages.store.checkpoints import Best, best_checkpoint
from stages.store.errors import WorkFailed
from stages.store.specs.policy import Policy as Settings
from stages.training.course import length_of
from stages.training.tuning import FixedPrompts, fixed_prompts, write_chat_model
from stages.training.updates import MicroBatches

LOOKED_AT = 4
"""Micro-batches that are computed together where no gradient is: nothing is kept for a backward pass."""
SHOWN = 8
"""Rollouts that are kept to be read, at a time."""


class Reference:
    """The frozen model that the policy is held near: another one, or a policy with adapters without them."""

    def __init__(self, model: Decoder, *, bare: bool = False) -> None:
        self._model, self._bare = model, bare

    @torch.no_grad()
    def logprobs(self, inputs_BT: Tensor, targets_BT: Tensor, temperature: float) -> Tensor:
        """log p of each target, 0 where there is none: (B, T) fp32."""
        with without_lora(self._model) if self._bare else contextlib.nullcontext():
            return token_logprobs(self._model, inputs_BT, targets_BT, temperature=temperature)


class Looked(NamedTuple):
    """What the policy and its reference think of rollouts, before any update: (B, T) each, 0 where no target is."""

    logprobs: Tensor
    entropy: Tensor
    reference: Tensor


@dataclass
class Policy:
    """A policy at work: it writes, has it scored, looks at held-out prompts, reports and saves itself."""

    run: Run
    settings: Settings
    model: Decoder
    optimizer: AdamW
    reference: Reference
    base: Path
    template: str
    prompts: Prompts
    held_out: Prompts
    score: Score
    progress: PolicyProgress
    metrics: dict[str, float]
    group: int = 1
    """Completions of each prompt."""
    others: dict[str, AdamW] = field(default_factory=dict)
    """By name, the optimisers of further models: they are saved with this one."""
    write_more: Callable[[Path], None] = lambda folder: None
    """Writes further models into a checkpoint's folder."""

    def __post_init__(self) -> None:
        settings = self.settings
        self.steps, self.warmup = length_of(settings, len(self.prompts.asked))
        asked = fixed_prompts(settings.sample_prompts, probes=settings.probes)
        self.fixed = FixedPrompts(self.base, self.template, asked, settings.sample_tokens)
        self.tokenizer = TextTokenizer.load(self.base)
        self.writer = Writer(self.tokenizer, self.fixed.stops, settings.max_new_tokens, settings.slots)
        completions = settings.batch_size * self.group
        at_once = -(-completions // settings.minibatches)
        self.micro = MicroBatches(self.run, self.progress, at_once, settings.micro_batch)
        self.alarms = Alarms(self.run, self.progress.watched, self.run.spec.settings, pauses=settings.pause_on_alarm)
        self.pace = Pace(self.model.tokens.device, "", 0)
        self.log_every = log_interval(settings.log_every, self.steps)
        self.best = Best("val/reward", highest=True, within=("val/kl", settings.kl_budget or settings.max_kl))
        self._last_evaluation = -1

    # -- rollouts ------------------------------------------------------------------------------------------------------

    def roll(self, count: int) -> Rollouts:
        """Completions of the next `count` prompts, `group` of each, one group after the other."""
        prompts = self.prompts.order(self.progress.asked, count, self.settings.seed)
        asked = [each for each in prompts for _ in range(self.group)]
        seeds = seeds_of(self.settings.seed, self.progress.drawn, len(asked))
        self.progress.asked += len(prompts)
        self.progress.drawn += len(asked)
        return self.writer.write(self.model, asked, seeds, self.settings.temperature)

    def scores(self, rollouts: Rollouts) -> list[float]:
        """What the scorer makes of each."""
        parts = zip(rollouts.asked, rollouts.texts, rollouts.completions, strict=True)
        said = [Said(asked.prompt, text, tokens, [*asked.tokens, *tokens]) for asked, text, tokens in parts]
        found = self.score(said)
        if not all(map(math.isfinite, found)):
            raise WorkFailed(f"A reward at step {self.progress.step + 1} is no finite number.")
        return found

    def penalties(self, rollouts: Rollouts) -> NDArray[np.float32]:
        """What is taken from the reward of each that did not come to an end: (B,)."""
        return np.array([0.0 if ended else self.settings.missing_end_penalty for ended in rollouts.ended], np.float32)

    @torch.no_grad()
    def look(self, rollouts: Rollouts) -> Looked:
        """Log-probabilities by policy and reference, and the policy's entropy."""
        temperature = self.settings.temperature
        mine = self.in_parts(
            rollouts,
            lambda x, y: torch.stack(token_logprobs_and_entropy(self.model, x, y, temperature=temperature)),
        )
        return Looked(mine[0], mine[1], self.by_reference(rollouts))

    def by_reference(self, rollouts: Rollouts) -> Tensor:
        """Log-probabilities by the reference (B, T)."""
        temperature = self.settings.temperature
        return self.in_parts(rollouts, lambda x, y: self.reference.logprobs(x, y, temperature)[None])[0]

    def in_parts(self, rollouts: Rollouts, figures: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """figures(inputs, targets) (n, b, t) of some rollouts at a time, for all: (n, B, T), 0 beyond."""
        found = None
        for rows, inputs, targets in self.parts(rollouts, np.arange(len(rollouts)), LOOKED_AT):
            part = figures(inputs, targets)
            if found is None:
                found = part.new_zeros(len(part), *rollouts.targets.shape)
            found[:, rows, : part.shape[2]] = part
        assert found is not None
        return found

    def parts(
        self, rollouts: Rollouts, rows: NDArray[np.int64], times: int = 1
    ) -> Iterator[tuple[NDArray[np.int64], Tensor, Tensor]]:
        """These rows, `times` as many as a micro-batch at once, with inputs and targets cut to the longest of them."""
        at_once = self.micro.rows * times
        for part in (rows[start : start + at_once] for start in range(0, len(rows), at_once)):
            width = rollouts.width(part)
            yield part, rollouts.inputs[part, :width], rollouts.targets[part, :width]

    def minibatches(self, count: int) -> Iterator[NDArray[np.int64]]:
        """Rows of each update of a step: every pass in an order of its own, which follows from seed and step."""
        for number in range(self.settings.passes):
            epoch = self.progress.step * self.settings.passes + number
            order = permute(np.arange(count, dtype=np.uint64), count, self.settings.seed, epoch)
            yield from (part for part in np.array_split(order, self.settings.minibatches) if len(part))

    # -- memory --------------------------------------------------------------------------------------------------------

    def try_memory(self, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        """Try the longest rollouts that there can be. loss: of inputs and targets (b, t)."""
        longest = max(len(asked.tokens) for asked in self.prompts.asked) + self.settings.max_new_tokens - 1

        def loss_of(count: int) -> Tensor:
            inputs = torch.full((count, longest), self.tokenizer.pad_id, device=self.model.tokens.device)
            inputs[:, 0] = torch.arange(count) % self.model.config.vocab_size  # no two share a prompt
            targets = torch.full_like(inputs, self.tokenizer.eos_id)
            targets[:, : longest - self.settings.max_new_tokens] = IGNORED
            return loss(inputs, targets)

        self.run.report(self.progress.step, self.steps, phase="trying the memory")
        self.micro.choose(self.model, self.optimizer, loss_of, self.settings.batch_size * self.group)

    # -- reporting -----------------------------------------------------------------------------------------------------

    def due(self, every: int) -> bool:
        """Whether something done every so many steps, and at the end, is to be done now."""
        return self.progress.step % every == 0 or self.progress.step == self.steps

    def measures(self, rollouts: Rollouts, seen: Looked) -> dict[str, float]:
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

    def log(self, row: dict[str, float]) -> None:
        """Report the step, look for alarms, evaluate and answer fixed prompts when due, and append a row of metrics."""
        step, settings = self.progress.step, self.settings
        self.run.report(step, self.steps)
        self.alarms.check(self.progress, row)
        evaluated = self.due(settings.eval_every)
        if evaluated:
            row |= self.evaluate()
        if evaluated or self.due(self.log_every):
            self.run.log_metrics(step, row | self.pace.row() | {"tokens": float(self.progress.tokens_seen)})
        if settings.sample_every and self.due(settings.sample_every):
            self.answer_fixed()

    def begin(self) -> None:
        """What a fresh start shows before its first step: held-out prompts, and fixed ones."""
        if self.progress.step == 0:
            if found := self.evaluate():
                self.run.log_metrics(0, found)
            if self.settings.sample_every:
                self.answer_fixed()

    def answer_fixed(self) -> None:
        """Have the fixed prompts answered, each token the likeliest."""
        self.fixed.answer(self.run, self.progress.step, self.model)

    def evaluate(self) -> dict[str, float]:
        """Reward, as it is scored, and log π − log π_ref of the likeliest answers to held-out prompts, if any.

        The latter, `val/kl`, is no estimate of the KL, which is a mean over drawn answers: it is mostly above, for the
        policy has raised just these. So a checkpoint within a budget by it is within by the KL.
        """
        self._last_evaluation = self.progress.step
        asked = self.held_out.asked[: self.settings.eval_prompts]
        if not asked:
            return {}
        rollouts = self.writer.write(self.model, asked, [0] * len(asked), 0.0)
        scores, seen = self.scores(rollouts), self.look(rollouts)
        found = self.measures(rollouts, seen)
        self.metrics = {
            "val/reward": sum(scores) / len(scores),
            "val/kl": found["policy/kl"],
            "val/length": found["policy/length"],
            "val/ended": found["policy/ended"],
        }
        return self.metrics

    def show(self, rollouts: Rollouts, rewards: Sequence[float], seen: Looked, advantages_BT: Tensor) -> None:
        """Keep some of a step's rollouts to be read, token by token. The step is the one that is being made."""
        step, every = self.progress.step + 1, self.settings.sample_every
        if not every or (step % every and step not in (1, self.steps)):
            return
        rows = np.unique(np.linspace(0, len(rollouts) - 1, SHOWN).round().astype(int)).tolist()
        kl_BT = k1(seen.logprobs, seen.reference)
        for row in rows:
            start = len(rollouts.asked[row].tokens) - 1
            said = slice(start, start + len(rollouts.completions[row]))
            self.run.sample(
                step,
                kind="rollout",
                prompt=rollouts.asked[row].text,
                text=rollouts.texts[row],
                reward=round(rewards[row], 4),
                kl=round(float(kl_BT[row, said].sum()), 4),
                ended=rollouts.ended[row],
                pieces=[self.tokenizer.decode([token], skip_special=False) for token in rollouts.completions[row]],
                token_kl=_rounded(kl_BT[row, said]),
                token_advantage=_rounded(advantages_BT[row, said]),
                token_logprob=_rounded(seen.logprobs[row, said]),
            )

    # -- saving --------------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write a checkpoint of this step, evaluated, unless there is one."""
        if self.progress.step == 0 or self.run.state.last_checkpoint == f"step-{self.progress.step}":
            return
        if self._last_evaluation != self.progress.step and (found := self.evaluate()):
            self.run.log_metrics(self.progress.step, found)
        save_checkpoint(
            self.run, self.progress, self.optimizer, self._write, self.metrics, others=self.others, best=self.best
        )

    def _write(self, folder: Path) -> None:
        write_chat_model(self.model, folder, self.base, self.template, self.fixed.stops, keep=self.settings.lora_keep)
        self.write_more(folder)

    def result(self) -> dict[str, Any]:
        """The closing figures."""
        best = best_checkpoint(self.run.dir, self.best)
        return {
            "checkpoint": self.run.state.last_checkpoint,
            "best": best.name if best else None,
            "prompts": len(self.prompts.asked),
            "completions": self.progress.drawn,
            "tokens_seen": self.progress.tokens_seen,
            "micro_batch": self.micro.rows,
            "precision": self.progress.precision,
            **self.metrics,
        }


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]
