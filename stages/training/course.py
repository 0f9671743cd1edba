"""The course of a training: for how long, when it tells of itself, when it is validated and saved.

A stage's data, its loss and its step stand in its own file, in what is called a `Learner` here; there is no base class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from stages.loop import Pace, by_leader, honour, log_interval, save_checkpoint, worth_saving
from stages.run import Run
from stages.store.architecture import ModelConfig
from stages.store.checkpoints import best_checkpoint
from stages.store.compute import Work
from stages.store.sizes import flops_per_token
from stages.store.specs.pretrain import Pretrain
from stages.store.specs.tuning import Learning
from stages.training.opening import Opened
from stages.training.updates import MicroBatches, Update, Updates


def length_of(settings: Learning | Pretrain, records: int | None) -> tuple[int, int]:
    """Steps of a run, and of warm-up among them: as asked, or in fine-tuning as its epochs of so many records say."""
    if isinstance(settings, Pretrain):
        return settings.steps, settings.warmup
    assert records is not None
    steps = settings.steps or max(1, math.ceil(settings.epochs * records / settings.batch_size))
    return steps, min(settings.warmup, steps // 10)


class Learner(Protocol):
    """What a stage brings along to be trained."""

    def costliest(self, rows: int) -> Tensor:
        """A loss that takes as much memory as any on so many rows can. It must leave nothing behind."""

    def step(self) -> Update:
        """Make one update."""

    def figures(self) -> Mapping[str, float]:
        """What the last step is to log beside its loss."""

    def evaluate(self, *, whole: bool) -> dict[str, float]:
        """Figures of what is held out, or of some of it, `val/loss` among them; {} where nothing is."""

    def write(self, folder: Path) -> None:
        """Write the model into a checkpoint's folder."""


class Course:
    """The steps of a run, and what is done between them. `metrics` is the latest validation."""

    def __init__(
        self,
        run: Run,
        settings: Learning | Pretrain,
        opened: Opened[Any, Any],
        config: ModelConfig,
        work: Work,
        records: int | None = None,
        *,
        sample: Callable[[], None] | None = None,
        sample_every: int = 0,
        state: Callable[[], Mapping[str, Tensor] | None] = lambda: None,
        loss_spread: float = 1.0,
    ) -> None:
        """work: what its compute is made up of. records: of an epoch, which fine-tuning counts by. sample: shows what
        the model makes of fixed prompts. state: what the model carries from step to step, for a checkpoint.
        loss_spread: as `Divergence` takes it."""
        self._run, self._settings, self._opened, self._records = run, settings, opened, records
        self.work = work
        self._sample, self._sample_every, self._state = sample, sample_every, state
        self._progress = progress = opened.progress
        self.steps, warmup = length_of(settings, records)
        self.updates = Updates(opened.optimizer, progress, settings, self.steps, warmup, loss_spread)
        self.pace = Pace(opened.optimizer.parameters[0].device, progress.precision, flops_per_token(config))
        self.memory = MicroBatches(run, progress, settings.batch_size, settings.micro_batch)
        self.metrics = opened.metrics()
        self._validated = -1
        self._log_every = log_interval(settings.log_every, self.steps)
        self._eval_every = log_interval(settings.eval_every, self.steps)

    def make_ready(self, learner: Learner) -> None:
        """Try the memory unless a checkpoint knows; then restore random numbers."""
        if self._progress.micro_batch is None:
            self._run.report(self._progress.step, self.steps, phase="trying the memory")
            self.memory.choose(self._opened.model, self._opened.optimizer, learner.costliest)
        self._opened.restore_random(self._settings.seed)

    def follow(self, learner: Learner) -> None:
        """Train until the last step, and save."""
        while self._progress.step < self.steps:
            honour(self._run, lambda: self.save(learner), self._progress)
            self.log(learner, learner.step())
            if self._due(self._sample_every):
                self.sample()
            if self._due(self._settings.checkpoint_every):
                self.save(learner)
        self.save(learner, whole=True)

    def log(self, learner: Learner, made: Update) -> None:
        """Report the update, validate when it is time, and append a row of metrics when it is time."""
        step = self._progress.step
        self._run.report(step, self.steps)
        counted = {"train/loss": made.loss, "grad_norm": made.norm, "lr": made.lr}
        tokens = self._progress.tokens_seen
        row = counted | {"tokens": float(tokens), "compute": self.work.done(step, tokens), **learner.figures()}
        validated = self._due(self._eval_every)
        if validated:
            row |= self._validate(learner, whole=step == self.steps)
        if validated or self._due(self._log_every):
            row |= self.pace.row()
            if self._records:
                row["epoch"] = step * self._settings.batch_size / self._records
            self._run.log_metrics(step, row)

    def sample(self) -> None:
        """Have the first process show what the model makes of fixed prompts, if they are to be shown at all."""
        if self._sample and self._sample_every:
            by_leader(self._opened.model, self._sample)

    def save(self, learner: Learner, *, whole: bool = False) -> None:
        """Write a checkpoint of this step, validated, unless there is one or the loss is on its way up."""
        if not worth_saving(self._run, self._progress, self.updates.divergence):
            return
        if self._validated != self._progress.step and (found := self._validate(learner, whole=whole)):
            self._run.log_metrics(self._progress.step, found)
        save_checkpoint(
            self._run, self._progress, self._opened.optimizer, learner.write, self.metrics, state=self._state()
        )

    def closing(self, **own: Any) -> dict[str, Any]:
        """The closing figures of a run; `own` are those of its stage."""
        best = best_checkpoint(self._run.dir)
        return {
            "checkpoint": self._run.state.last_checkpoint,
            "best": best.name if best else None,
            "tokens_seen": self._progress.tokens_seen,
            "micro_batch": self.memory.rows,
            "precision": self._progress.precision,
            **own,
            **self.metrics,
        }

    def _validate(self, learner: Learner, *, whole: bool) -> dict[str, float]:
        found = learner.evaluate(whole=whole)
        self._validated = self._progress.step
        if found:
            self.updates.divergence.watch_validation(self._progress.step, found["val/loss"])
            self.metrics = found
        return found

    def _due(self, every: int) -> bool:
        """Whether something done every so many steps (0: never), and at the end, is to be done now."""
        return every > 0 and (self._progress.step % every == 0 or self._progress.step == self.steps)
