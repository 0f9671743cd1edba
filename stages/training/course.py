"""How a model is trained: for how long, at which rates, how much at once, how often it tells of itself.

A stage holds a course; its data, its loss and its loop stand in its own file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from stages.loop import Divergence, Pace, Progress, cosine_lr, log_interval
from stages.optim import AdamW
from stages.run import Run
from stages.store.architecture import ModelConfig
from stages.store.checkpoints import best_checkpoint
from stages.store.errors import WorkFailed
from stages.store.sizes import flops_per_token
from stages.store.specs.pretrain import Pretrain
from stages.store.specs.tuning import Learning
from stages.training import distributed
from stages.training.memory import Parts, does_not_fit, forget_gradients, is_out_of_memory, probe

T = TypeVar("T")
Rows = TypeVar("Rows", NDArray[np.int64], range)


def length_of(settings: Learning | Pretrain, records: int | None) -> tuple[int, int]:
    """Steps of a run, and of warm-up among them: as asked, or in fine-tuning as its epochs of so many records say."""
    if isinstance(settings, Pretrain):
        return settings.steps, settings.warmup
    assert records is not None
    steps = settings.steps or max(1, math.ceil(settings.epochs * records / settings.batch_size))
    return steps, min(settings.warmup, steps // 10)


class Course:
    """The steps of a run, its updates, its pace, and how many records are computed at once."""

    def __init__(
        self,
        run: Run,
        settings: Learning | Pretrain,
        progress: Progress,
        optimizer: AdamW,
        config: ModelConfig,
        records: int | None = None,
    ) -> None:
        """records: of an epoch, which fine-tuning counts by."""
        self._run, self._settings, self._progress, self._records = run, settings, progress, records
        self.steps, warmup = length_of(settings, records)
        self.updates = Updates(optimizer, progress, settings, self.steps, warmup)
        self.divergence = self.updates.divergence
        self.pace = Pace(optimizer.parameters[0].device, progress.precision, flops_per_token(config))
        self.memory = MicroBatches(run, progress, settings.batch_size, settings.micro_batch)
        self._log_every = log_interval(settings.log_every, self.steps)
        self._eval_every = log_interval(settings.eval_every, self.steps)

    def due(self, every: int) -> bool:
        """Whether something done every so many steps, and at the end, is to be done now."""
        return self._progress.step % every == 0 or self._progress.step == self.steps

    def log(
        self, made: tuple[float, float, float], own: Mapping[str, float], evaluate: Callable[..., dict[str, float]]
    ) -> None:
        """Report the update that was `made`, and when it is time append a row of metrics, validated when it is time.

        own: further figures of the row. evaluate: called with whole=True at the last step, where all that is held out
        counts.
        """
        step = self._progress.step
        self._run.report(step, self.steps)
        loss, norm, lr = made
        row = {"train/loss": loss, "grad_norm": norm, "lr": lr, "tokens": float(self._progress.tokens_seen), **own}
        evaluated = self.due(self._eval_every)
        if evaluated:
            row |= evaluate(whole=step == self.steps)
        if evaluated or self.due(self._log_every):
            row |= self.pace.row()
            if self._records:
                row["epoch"] = step * self._settings.batch_size / self._records
            self._run.log_metrics(step, row)

    def closing(self, metrics: dict[str, float], **own: Any) -> dict[str, Any]:
        """The closing figures of a run; `own` are those of its stage."""
        best = best_checkpoint(self._run.dir)
        return {
            "checkpoint": self._run.state.last_checkpoint,
            "best": best.name if best else None,
            "tokens_seen": self._progress.tokens_seen,
            "micro_batch": self.memory.rows,
            "precision": self._progress.precision,
            **own,
            **metrics,
        }


class MicroBatches:
    """How many rows of a step are computed at once: tried before the run begins, halved where memory runs out."""

    def __init__(self, run: Run, progress: Progress, batch_size: int, at_most: int | None) -> None:
        self._run, self._progress, self._batch_size = run, progress, batch_size
        self._share = distributed.share(batch_size)
        self._wanted = at_most or len(self._share)

    @property
    def rows(self) -> int:
        return self._progress.micro_batch or self._wanted

    def parts(self, rows: Rows) -> list[Rows]:
        """These rows, as many together as are computed at once."""
        return [rows[start : start + self.rows] for start in range(0, len(rows), self.rows)]

    def own(self, rows: Rows) -> Rows:
        """Those of the rows of a step's batch that this process computes: all where it is alone."""
        return rows[self._share.start : self._share.stop]

    def choose(self, model: nn.Module, optimizer: AdamW, loss_of: Callable[[int], Tensor], available: int) -> None:
        """Try the costliest rows, of which there are so many, and tell what a step takes in memory.

        A sharded model is not tried: its processes could not fail together.
        """
        if distributed.sharded(model):
            self._progress.micro_batch = self._wanted
            return
        wanted = min(self._wanted, len(self._share), available)
        found = probe(model, optimizer, loss_of, wanted)
        rows = distributed.all_reduce_min(found.rows)
        self._progress.micro_batch = rows if rows < wanted else self._wanted
        self._tell(found)

    def until_it_fits(self, model: nn.Module, step: Callable[[], T]) -> T:
        """What `step` gives, with fewer rows at once where it runs out of memory. WorkFailed when one is too many.

        Also when several processes train: those that did not run out have gone on.
        """
        while True:
            try:
                return step()
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if distributed.several():
                    raise WorkFailed(
                        f"The memory of process {distributed.rank()} ran out.",
                        "Start again with a smaller micro_batch.",
                    ) from error
            self._halve(model)  # here the failed step's tensors are gone

    def _halve(self, model: nn.Module) -> None:
        """Compute half as many rows at once from here on; the batch of a step stays."""
        forget_gradients(model)
        rows = min(self.rows, self._batch_size)
        if rows == 1:
            raise does_not_fit()
        self._progress.micro_batch = rows // 2
        self._run.warn(
            f"Memory ran out at step {self._progress.step + 1}: from here on {rows // 2:,} rows are computed at once "
            f"instead of {rows:,}. A step still sees {self._batch_size:,}."
        )

    def _tell(self, found: Parts) -> None:
        self._run.event("memory", **found._asdict(), total=found.total)
        parts = ", ".join(f"{name} {value / 1e6:,.0f} MB" for name, value in found._asdict().items() if name != "rows")
        print(f"memory of a step over {found.rows:,} rows at once: {parts}", flush=True)


def add_gradients(optimizer: AdamW, losses: Iterable[Tensor]) -> float:
    """Gather the gradients of a step's micro-batches; the sum of their losses, in all processes. One at a time."""
    total = 0.0
    for number, loss in enumerate(losses):
        loss.backward()
        optimizer.gather(first=number == 0)
        total += loss.item()
    return distributed.total(total)[0]


class Updates:
    """AdamW updates out of micro-batches, at the rates of a warm-up and a cosine; divergence is noticed."""

    def __init__(
        self, optimizer: AdamW, progress: Progress, settings: Learning | Pretrain, steps: int, warmup: int
    ) -> None:
        self._optimizer, self._progress, self._settings = optimizer, progress, settings
        self._steps, self._warmup = steps, warmup
        self.divergence = Divergence(progress)

    def make(self, losses: Iterable[Tensor]) -> tuple[float, float, float]:
        """One update: the sum of the losses before it, the gradient's norm, and the learning rate."""
        progress, settings = self._progress, self._settings
        loss = add_gradients(self._optimizer, losses)
        norm = self._optimizer.clip(settings.clip)
        self.divergence.watch(progress.step + 1, loss, norm)
        peak = progress.lr
        floor = peak * settings.min_lr_ratio
        lr = cosine_lr(progress.step, peak=peak, floor=floor, warmup=self._warmup, total=self._steps)
        self._optimizer.step(lr)
        progress.step += 1
        return loss, norm, lr
