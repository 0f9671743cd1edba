"""How a step is computed: in micro-batches that fit the memory, whose gradients add up to one AdamW update."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from stages.loop import Divergence, Progress, cosine_lr
from stages.optim import AdamW
from stages.run import Run
from stages.store.errors import WorkFailed
from stages.store.specs.pretrain import Pretrain
from stages.store.specs.tuning import Learning
from stages.training import distributed
from stages.training.memory import Parts, does_not_fit, forget_gradients, is_out_of_memory, probe

T = TypeVar("T")
Rows = TypeVar("Rows", NDArray[np.int64], range)


class Update(NamedTuple):
    """One that was made."""

    loss: float
    """In nats, before it."""
    norm: float
    """Of the gradient, before it is clipped."""
    lr: float


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

    def choose(
        self,
        model: nn.Module,
        optimizer: AdamW,
        loss_of: Callable[[int], Tensor],
        beside: Sequence[AdamW] = (),
    ) -> None:
        """Try the costliest rows, as many as a step has, and tell what it takes in memory.

        beside: optimisers of further models that the loss trains. A sharded model is not tried: its processes could not
        fail together.
        """
        if distributed.sharded(model):
            self._progress.micro_batch = self._wanted
            return
        wanted = min(self._wanted, len(self._share))
        found = probe(model, optimizer, loss_of, wanted, beside)
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
        forget_gradients(model.parameters())
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
    total, first = 0.0, True
    for loss in losses:
        loss.backward()
        optimizer.gather(first=first)
        first = False
        total += loss.item()
    if first:  # a process without rows adds nothing
        optimizer.gather(first=True)
    return distributed.total(total)[0]


class Updates:
    """AdamW updates out of micro-batches, at the rates of a warm-up and a cosine; divergence is noticed."""

    def __init__(
        self,
        optimizer: AdamW,
        progress: Progress,
        settings: Learning | Pretrain,
        steps: int,
        warmup: int,
        loss_spread: float = 1.0,
    ) -> None:
        """loss_spread: as `Divergence` takes it."""
        self._optimizer, self._progress, self._settings = optimizer, progress, settings
        self._steps, self._warmup = steps, warmup
        self.divergence = Divergence(progress, loss_spread)

    def make(self, losses: Iterable[Tensor]) -> Update:
        """One update from the micro-batches' shares of the loss."""
        progress, settings = self._progress, self._settings
        loss = add_gradients(self._optimizer, losses)
        norm = self._optimizer.clip(settings.clip)
        self.divergence.watch(progress.step + 1, loss, norm)
        peak = progress.lr
        floor = peak * settings.min_lr_ratio
        lr = cosine_lr(progress.step, peak=peak, floor=floor, warmup=self._warmup, total=self._steps)
        self._optimizer.step(lr)
        progress.step += 1
        return Update(loss, norm, lr)
