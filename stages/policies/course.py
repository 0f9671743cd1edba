"""The course of a policy run: what happens between its steps. Alarms, held-out prompts, what is shown, checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from stages.loop import Pace, by_leader, honour, log_interval, save_checkpoint
from stages.optim import AdamW
from stages.policies.alarms import Alarms
from stages.policies.kl import k1
from stages.policies.policy import Likelihoods, Policy
from stages.policies.rollouts import Prompts, Rollouts
from stages.run import Run
from stages.store.checkpoints import Best, best_checkpoint
from stages.store.compute import Work
from stages.training import distributed
from stages.training.course import length_of
from stages.training.opening import Opened
from stages.training.tuning import FixedPrompts, write_chat_model

SHOWN = 8
"""Rollouts that are kept to be read, at a time."""


@dataclass
class PolicyCourse:
    """The steps of a run, and what is done between them. `metrics` is the latest validation."""

    run: Run
    policy: Policy
    opened: Opened[Any, Any]
    base: Path
    template: str
    held_out: Prompts
    fixed: FixedPrompts
    work: Work
    """What its compute is made up of."""
    others: dict[str, AdamW] = field(default_factory=dict)
    """By name, the optimisers of further models: they are saved with the policy's."""
    write_more: Callable[[Path], None] = lambda folder: None
    """Writes further models into a checkpoint's folder."""

    def __post_init__(self) -> None:
        self.settings = settings = self.policy.settings
        self.progress = self.policy.progress
        self.steps, self.warmup = length_of(settings, len(self.policy.prompts.asked))
        self.alarms = Alarms(self.run, self.progress.watched, self.run.spec.settings, pauses=settings.pause_on_alarm)
        self.pace = Pace(self.policy.model.tokens.device, "", 0)
        self.metrics = self.opened.metrics()
        self.best = Best("val/reward", highest=True, within=("val/kl", settings.kl_budget or settings.max_kl))
        self._log_every = log_interval(settings.log_every, self.steps)
        self._validated = -1

    def make_ready(self, trial: Callable[[Tensor, Tensor], Tensor]) -> None:
        """Try the memory, unless a checkpoint knows. trial: as costly as the loss, of inputs and targets (b, t)."""
        if self.progress.micro_batch is None:
            self.run.report(self.progress.step, self.steps, phase="trying the memory")
            self.policy.try_memory(trial, tuple(self.others.values()))

    def follow(self, step: Callable[[], dict[str, float]]) -> dict[str, Any]:
        """Make steps until the last one, and save; what was reached. step: makes one and gives its figures."""
        self._begin()
        while self.progress.step < self.steps:
            honour(self.run, self.save, self.progress)
            self.policy.model.train()  # nothing is dropped, but activation_checkpointing asks for it
            self._log(step())
            if self._due(self.settings.checkpoint_every):
                self.save()
        self.save()
        return self.result()

    def evaluate(self) -> dict[str, float]:
        """Reward, as it is scored, and log π − log π_ref of the likeliest answers to held-out prompts, if any.

        The latter, `val/kl`, is no estimate of the KL, which is a mean over drawn answers: it is mostly above, for the
        policy has raised just these. So a checkpoint within a budget by it is within by the KL.
        """
        self._validated = self.progress.step
        asked = self.held_out.asked[: self.settings.eval_prompts]
        if not asked:
            return {}
        rollouts = self.policy.writer.write(self.policy.model, asked, [0] * len(asked), 0.0)
        scores, seen = self.policy.scores(rollouts), self.policy.likelihoods(rollouts)
        found = self.policy.measures(rollouts, seen)
        self.metrics = {
            "val/reward": sum(scores) / len(scores),
            "val/kl": found["policy/kl"],
            "val/length": found["policy/length"],
            "val/ended": found["policy/ended"],
        }
        return self.metrics

    def show(self, rollouts: Rollouts, rewards: Sequence[float], seen: Likelihoods, advantages_BT: Tensor) -> None:
        """Keep some of a step's rollouts to be read, token by token. The step is the one that is being made."""
        step, every = self.progress.step + 1, self.settings.sample_every
        if not every or (step % every and step not in (1, self.steps)):
            return
        rows = np.unique(np.linspace(0, len(rollouts) - 1, SHOWN).round().astype(int)).tolist()
        tokenizer, kl_BT = self.policy.writer.tokenizer, k1(seen.logprobs, seen.reference)
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
                pieces=[tokenizer.decode([token], skip_special=False) for token in rollouts.completions[row]],
                token_kl=_rounded(kl_BT[row, said]),
                token_advantage=_rounded(advantages_BT[row, said]),
                token_logprob=_rounded(seen.logprobs[row, said]),
            )

    def save(self) -> None:
        """Write a checkpoint of this step, evaluated, unless there is one."""
        if self.progress.step == 0 or self.run.state.last_checkpoint == f"step-{self.progress.step}":
            return
        if self._validated != self.progress.step and (found := self.evaluate()):
            self.run.log_metrics(self.progress.step, found)
        save_checkpoint(
            self.run,
            self.progress,
            self.policy.optimizer,
            self._write,
            self.metrics,
            others=self.others,
            best=self.best,
        )

    def result(self) -> dict[str, Any]:
        """The closing figures."""
        best = best_checkpoint(self.run.dir, self.best)
        return {
            "checkpoint": self.run.state.last_checkpoint,
            "best": best.name if best else None,
            "prompts": len(self.policy.prompts.asked),
            "completions": self.progress.drawn,
            "tokens_seen": self.progress.tokens_seen,
            "micro_batch": self.policy.micro.rows,
            "precision": self.progress.precision,
            **self.metrics,
        }

    def _log(self, row: dict[str, float]) -> None:
        """Report the step, look for alarms, evaluate and answer fixed prompts when due, and append a row of metrics."""
        step, settings = self.progress.step, self.settings
        self.run.report(step, self.steps)
        if distributed.leads():  # all have the same row, and a pause reaches all
            self.alarms.check(self.progress, row)
        evaluated = self._due(settings.eval_every)
        if evaluated:
            row |= self.evaluate()
        if evaluated or self._due(self._log_every):
            self.run.log_metrics(step, row | self.pace.row() | self._counted())
        if settings.sample_every and self._due(settings.sample_every):
            self._answer_fixed()

    def _counted(self) -> dict[str, float]:
        """Tokens learnt from and compute so far."""
        progress = self.progress
        drawn = max(progress.tokens_drawn, progress.tokens_seen)  # a checkpoint may be of a version that did not count
        done = self.work.done(progress.step, progress.tokens_seen, drawn)
        return {"tokens": float(progress.tokens_seen), "compute": done}

    def _begin(self) -> None:
        """What a fresh start shows before its first step: held-out prompts, and fixed ones."""
        if self.progress.step == 0:
            if found := self.evaluate():
                self.run.log_metrics(0, found)
            if self.settings.sample_every:
                self._answer_fixed()

    def _answer_fixed(self) -> None:
        """Have the first process answer the fixed prompts, each token the likeliest."""
        model = self.policy.model
        by_leader(model, lambda: self.fixed.answer(self.run, self.progress.step, model))

    def _write(self, folder: Path) -> None:
        write_chat_model(
            self.policy.model, folder, self.base, self.template, self.fixed.stops, keep=self.settings.lora_keep
        )
        self.write_more(folder)

    def _due(self, every: int) -> bool:
        """Whether something done every so many steps, and at the end, is to be done now."""
        return self.progress.step % every == 0 or self.progress.step == self.steps


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]
