"""The verbs that training loops share: schedule, watch for divergence, save, resume, honour requests."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, overload

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from stages.models.tensors import save_tensors
from stages.optim import AdamW
from stages.run import Run, Stopped
from stages.store.checkpoints import (
    LINEAGE,
    Best,
    Checkpoint,
    Lineage,
    latest_verified,
    prune,
    write_checkpoint,
)
from stages.store.errors import UNREADABLE, UserError, WorkFailed
from stages.store.files import check_space, write_atomic
from stages.store.sizes import peak_flops
from stages.training import distributed, resuming

MAX_ROWS = 100_000
"""A run logs at most about this many rows of metrics, so that attaching to it stays quick."""


STATE = "state.safetensors"
"""In the folder resume/: what a recurrent model carries from step to step."""


class Progress(msgspec.Struct, kw_only=True):
    """Where training stands, beside weights, moments and random numbers. Saved in resume/progress.json."""

    step: int = 0
    tokens_seen: int = 0
    lr: float
    """The peak learning rate now in force."""
    precision: str
    smoothed: float | None = None
    """Moving average of the loss, in nats."""
    lowest: float | None = None
    """The lowest value it has had."""
    micro_batch: int | None = None
    """Rows computed at once, where memory has decided it: other numbers would round otherwise."""


P = TypeVar("P", bound=Progress)


def set_up_torch(run: Run, *, deterministic: bool) -> torch.device:
    """Set what the run has recorded, meet the other processes if there are any, and return the device to work on.

    It is what the run's place in the queue has given it; its processes share the threads. Raises WorkFailed when it is
    a GPU that torch cannot use.
    """
    torch.set_num_threads(max(1, run.spec.threads // run.me.size))
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first product is made
    torch.use_deterministic_algorithms(deterministic)
    device = _device(run)
    distributed.join(run.me, run.dir.path, device)
    return device


def _device(run: Run) -> torch.device:
    if torch.cuda.is_available() and run.me.size == 1:
        return torch.device("cuda")
    if torch.cuda.is_available():
        torch.cuda.set_device(run.me.local % torch.cuda.device_count())
        return torch.device("cuda", torch.cuda.current_device())
    if run.state.device not in ("", "cpu"):
        raise WorkFailed(
            "This machine has a GPU that torch cannot use.", "`workbench doctor` says why; or set device to cpu."
        )
    return torch.device("cpu")


@contextlib.contextmanager
def any_algorithms() -> Iterator[None]:
    """Allow what has no deterministic form on a GPU (cumulative sums, say) while nothing is computed that trains."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def cosine_lr(step: int, *, peak: float, floor: float, warmup: int, total: int) -> float:
    """Learning rate of the update after `step` updates: linear warm-up, then a cosine from `peak` to `floor`.

    Source: Loshchilov and Hutter, SGDR (arXiv 1608.03983), eq. 5, without restarts.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    share = min(1.0, (step - warmup) / max(1, total - warmup))
    return floor + 0.5 * (peak - floor) * (1 + math.cos(math.pi * share))


def log_interval(asked: int, total: int) -> int:
    """Steps between rows of metrics: as asked, or more where a long run would write over MAX_ROWS."""
    return max(asked, -(-total // MAX_ROWS))


class Pace:
    """Tokens a second between two rows of metrics, validation and saving left out; MFU where the peak is known."""

    def __init__(self, device: torch.device, precision: str, flops_per_token: int) -> None:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        peak = peak_flops(name) if name and precision == "bf16" else None
        self._peak = peak * distributed.size() if peak else None
        self._flops_per_token = flops_per_token
        self._busy, self._tokens = 0.0, 0

    @contextlib.contextmanager
    def step(self, tokens: int) -> Iterator[None]:
        """Count what happens in here as a step over so many tokens."""
        began = time.perf_counter()
        yield
        self._busy += time.perf_counter() - began
        self._tokens += tokens

    def row(self) -> dict[str, float]:
        """Figures for a row; nothing when no step was made since the last."""
        if not self._busy:
            return {}
        rate = self._tokens / self._busy
        self._busy, self._tokens = 0.0, 0
        return {"tokens_per_s": rate} | ({"mfu": rate * self._flops_per_token / self._peak} if self._peak else {})


class Divergence:
    """Notices a loss that is not finite at once, and one that has exploded within a few steps.

    Exploded: the moving average (weight 0.1 on the newest loss) stands more than 2 nats above its lowest value, or so
    many times that as `spread` says, of a loss that differs more from batch to batch than one in nats a token.
    """

    WEIGHT, LIMIT = 0.1, 2.0

    def __init__(self, progress: Progress, spread: float = 1.0) -> None:
        self._progress, self._limit = progress, self.LIMIT * spread

    def watch(self, step: int, loss: float, gradient_norm: float) -> None:
        """Raise WorkFailed when training has gone wrong at `step`. Call it before the update is made."""
        refuse_no_number(step, loss, gradient_norm)
        p = self._progress
        p.smoothed = loss if p.smoothed is None else (1 - self.WEIGHT) * p.smoothed + self.WEIGHT * loss
        p.lowest = p.smoothed if p.lowest is None else min(p.lowest, p.smoothed)
        if p.smoothed > p.lowest + self._limit:
            raise went_wrong(
                f"The loss exploded at step {step}: its average rose from {p.lowest:.2f} to {p.smoothed:.2f}."
            )

    def watch_validation(self, step: int, nats: float) -> None:
        """Raise WorkFailed when the model of `step` has no finite validation loss and must not be kept."""
        if not math.isfinite(nats):
            raise went_wrong(f"The validation loss became {nats} at step {step}.")

    def suspicious(self) -> bool:
        """Whether the loss is on its way up, so that a checkpoint now might keep a broken model."""
        p = self._progress
        return p.smoothed is not None and p.lowest is not None and p.smoothed > p.lowest + self._limit / 2


def refuse_no_number(step: int, loss: float, gradient_norm: float) -> None:
    """Raise WorkFailed when loss or gradient at `step` are no finite numbers. Call it before the update is made."""
    if not math.isfinite(loss):
        raise went_wrong(f"The loss became {loss} at step {step}.")
    if not math.isfinite(gradient_norm):
        raise went_wrong(f"The gradient's norm became {gradient_norm} at step {step}.")


def went_wrong(sentence: str) -> WorkFailed:
    """Training that has gone wrong, with what to do about it."""
    return WorkFailed(sentence, "The last good checkpoint is kept. Resume from it with a lower learning rate.")


def by_leader(model: torch.nn.Module, act: Callable[[], None]) -> None:
    """Let the first process do something with the whole model, such as sampling. All must come here."""
    with distributed.whole(model):
        if distributed.leads():
            act()


def worth_saving(run: Run, progress: Progress, divergence: Divergence) -> bool:
    """Whether this step has no checkpoint yet and the loss is not on its way up, which is told."""
    if progress.step == 0 or run.state.last_checkpoint == f"step-{progress.step}":
        return False
    if divergence.suspicious():
        run.warn(f"No checkpoint at step {progress.step}: the loss is rising.")
        return False
    return True


def save_checkpoint(
    run: Run,
    progress: Progress,
    optimizer: AdamW,
    write_model: Callable[[Path], None],
    metrics: dict[str, float],
    *,
    others: Mapping[str, AdamW] | None = None,
    best: Best | None = None,
    state: Mapping[str, torch.Tensor] | None = None,
) -> Checkpoint:
    """Write checkpoints/step-<n>: the model's folder (fp32 masters), lineage, and what resuming needs.

    others: by name the optimisers of further models that `write_model` writes. best: which checkpoint is kept as such.
    state: by name the tensors that the model carries from step to step, for `read_state`.

    Of several processes the first writes all but what each holds of the resume files. All must come.
    """
    optimizers = {"": optimizer, **(others or {})}
    name = f"step-{progress.step}"
    if not distributed.leads():
        with _masters(optimizers):
            resuming.help_save(optimizers)
        run.set_status("running", last_checkpoint=name)
        return Checkpoint(run.dir.checkpoints / name, progress.step)
    check_space(run.dir.path, sum(each.bytes_on_disk() for each in optimizers.values()))

    def fill(folder: Path) -> None:
        with _masters(optimizers):
            write_model(folder)
        write_atomic(folder / LINEAGE, msgspec.json.format(_lineage(run, progress, metrics), indent=1), durable=False)
        resuming.save(folder / "resume", msgspec.json.encode(progress), optimizers)
        if state:
            save_tensors(dict(state), folder / "resume" / STATE)

    checkpoint = write_checkpoint(run.dir.checkpoints / name, fill)
    run.set_status("running", last_checkpoint=name)
    run.event("checkpoint", step=progress.step, name=name, **metrics)
    prune(run.dir, best)
    return checkpoint


@contextlib.contextmanager
def _masters(optimizers: Mapping[str, AdamW]) -> Iterator[None]:
    """While this lasts, the parameters of all their models are the fp32 masters."""
    with contextlib.ExitStack() as stack:
        for each in optimizers.values():
            stack.enter_context(each.masters())
        yield


def find_resume(run: Run) -> Checkpoint | None:
    """The newest whole checkpoint of this run, or None for a fresh start. Damaged ones are named and passed over.

    Tells readers of the metrics from which step they begin anew.
    """
    checkpoint, refused = latest_verified(run.dir)
    for sentence in refused:
        run.warn(f"{sentence} Resuming from the one before it.")
    run.state.last_checkpoint = checkpoint.name if checkpoint is not None else None
    if checkpoint is not None or run.dir.metrics.exists():
        step = checkpoint.step if checkpoint is not None else 0
        run.rewind(step)
        run.requests.rates = rates_set_since(run, step)
        run.event("resumed", step=step)
    return checkpoint


def rates_set_since(run: Run, step: int) -> list[tuple[int, float]]:
    """Learning rates that were set at `step` or later, by step. A newer wish overrules what stood at later steps."""
    rates: list[tuple[int, float]] = []
    for line in run.dir.events.read_bytes().splitlines():
        event = msgspec.json.decode(line, type=dict[str, Any])
        if event["event"] == "set":
            rates = [rate for rate in rates if rate[0] < event["step"]] + [(event["step"], event["lr"])]
    return [rate for rate in rates if rate[0] >= step]


@overload
def read_progress(checkpoint: Checkpoint) -> Progress: ...
@overload
def read_progress(checkpoint: Checkpoint, kind: type[P]) -> P: ...
def read_progress(checkpoint: Checkpoint, kind: Any = Progress) -> Any:
    """Where the training that wrote this checkpoint stood."""
    path = checkpoint.path / "resume" / "progress.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except UNREADABLE as error:
        raise UserError(f"{checkpoint.path} cannot be resumed: {error}.", "Start a new run.") from error


def load_resume(checkpoint: Checkpoint, optimizer: AdamW) -> None:
    """Put moments and random numbers back. The weights are in the model already.

    Call it last before training: nothing may draw random numbers in between.
    """
    with _damage_told(checkpoint):
        resuming.load(checkpoint.path / "resume", optimizer, checkpoint.step)


def read_state(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """What the model carried from step to step, as `save_checkpoint` was given it."""
    with _damage_told(checkpoint):
        return load_file(checkpoint.path / "resume" / STATE)


def load_moments(checkpoint: Checkpoint, optimizer: AdamW, name: str) -> None:
    """Put the moments of the optimiser of a further model back, by its name."""
    with _damage_told(checkpoint):
        resuming.load_moments(checkpoint.path / "resume", optimizer, name)


@contextlib.contextmanager
def _damage_told(checkpoint: Checkpoint) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError, KeyError) as error:
        raise UserError(f"{checkpoint.path} cannot be resumed: {error}.", "Start a new run.") from error


def honour(run: Run, save: Callable[[], Any], progress: Progress) -> None:
    """Do what the user has asked since the last step: change the rate, save, pause, stop."""
    requests = run.requests
    distributed.agree(requests)
    while requests.rates and requests.rates[0][0] <= progress.step:
        progress.lr = requests.rates.pop(0)[1]
    if "lr" in requests.values:
        _set_lr(run, progress, requests.values.pop("lr"))
    if requests.checkpoint or requests.ending:
        requests.checkpoint = False
        save()
    if requests.ending:
        raise Stopped(requests.ending, requests.why if requests.ending == "paused" else "")


def _set_lr(run: Run, progress: Progress, lr: object) -> None:
    """Change the peak learning rate; what is no such rate is refused by a warning, whoever wrote the request."""
    if isinstance(lr, bool) or not isinstance(lr, int | float) or not 0 < lr <= 1:
        run.warn(f"The learning rate cannot be set to {lr!r}; it stays {progress.lr:g}.")
        return
    before, progress.lr = progress.lr, float(lr)
    run.requests.rates.clear()
    run.event("set", lr=progress.lr, before=before, step=progress.step)


def _lineage(run: Run, progress: Progress, metrics: dict[str, float]) -> bytes:
    return msgspec.json.encode(
        Lineage(
            stage=run.spec.stage,
            run=run.dir.id,
            name=run.spec.name,
            step=progress.step,
            parents=run.spec.parents,
            settings=run.spec.settings,
            metrics=metrics,
            tokens_seen=progress.tokens_seen,
            created=time.time(),
        )
    )
