"""What the stages that fine-tune a model share: opening it, updates out of micro-batches that fit the memory, prompts.

A stage keeps its data, its loss and its loop in its own file, and holds these parts; there is no base class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import assets
from stages.data.conversations import Masker
from stages.data.templates import FILE
from stages.data.tokenizer import TextTokenizer, copy_tokenizer
from stages.generate import Sampling, generate
from stages.loop import Divergence, Progress, any_algorithms, cosine_lr, find_resume, load_resume, read_progress
from stages.models.decoder import Decoder
from stages.optim import AdamW
from stages.run import Run
from stages.store.architecture import ModelConfig
from stages.store.checkpoints import Checkpoint
from stages.store.errors import UserError, WorkFailed
from stages.store.records import Message
from stages.store.sizes import parameter_count, training_memory
from stages.store.specs.sft import SFT
from stages.store.specs.tuning import Learning, Tuning
from stages.training import distributed
from stages.training.adapting import Ids, freeze_in, open_adapted, open_whole, write_trained
from stages.training.memory import Parts, does_not_fit, forget_gradients, is_out_of_memory, probe
from stages.training.precision import choose_precision

PROBES = Path(assets.__file__).parent / "starter" / "probes.jsonl"

T = TypeVar("T")


class Opened(NamedTuple):
    """A model to train, its optimiser, and the checkpoint that training goes on from, if it has begun before."""

    model: Decoder
    optimizer: AdamW
    progress: Progress
    checkpoint: Checkpoint | None

    def metrics(self) -> dict[str, float]:
        """The latest validation, as the checkpoint has it; empty for a fresh start."""
        lineage = self.checkpoint.lineage() if self.checkpoint else None
        return dict(lineage.metrics) if lineage else {}

    def restore_random(self, seed: int) -> None:
        """Seed the random numbers, or put those of the checkpoint back with the moments: last before training."""
        distributed.seed(seed)
        if self.checkpoint:
            load_resume(self.checkpoint, self.optimizer)


def open_model(
    run: Run,
    settings: Tuning,
    base: Path,
    config: ModelConfig,
    device: torch.device,
    *,
    lr: float,
    eps: float = 1e-8,
    kind: type[Progress] = Progress,
) -> Opened:
    """The model of `base`, or of the run's last checkpoint, with all weights to train or adapters beside frozen ones.

    lr: the peak learning rate of a fresh start. eps: of AdamW. kind: what progress.json holds.
    """
    checkpoint = find_resume(run)
    if checkpoint:
        progress = read_progress(checkpoint, kind)
    else:
        progress = kind(lr=lr, precision=choose_precision(settings.precision, device).name)
    precision = choose_precision(progress.precision, device)
    source = checkpoint.path if checkpoint else None
    sharding = choose_sharding(settings, config, progress.precision, device)
    if settings.method == "lora":
        model = open_adapted(base, source, settings, device, config)
    else:
        model = open_whole(source or base, "cpu" if sharding == "fsdp" else device, config)
    model.checkpointing = settings.activation_checkpointing
    if sharding == "fsdp":
        distributed.cut(model, device, precision.dtype)
    optimizer = AdamW(
        model,
        betas=(settings.beta1, settings.beta2),
        weight_decay=settings.weight_decay,
        eps=eps,
        compute_dtype=precision.dtype,
    )
    freeze_in(model, precision.dtype)
    run.event(
        "model",
        parameters=parameter_count(config).total,
        trained=sum(parameter.numel() for parameter in optimizer.parameters),
        device=device.type,
        precision=precision.name,
        why=precision.why,
        **distributed.told_of(sharding),
    )
    return Opened(model, optimizer, progress, checkpoint)


def choose_sharding(settings: Tuning, config: ModelConfig, precision: str, device: torch.device) -> str:
    """What each of several processes holds: ddp or fsdp. One alone finds out by trying what fits."""
    if not distributed.several() or not isinstance(settings, SFT) or not settings.CUTS or settings.method == "lora":
        return "ddp"
    need = training_memory(config, 1, dtype=precision)
    return distributed.choose_sharding(settings.sharding, need.total, need.activations, device)


def room_for(asked: int | None, model_context: int) -> int:
    """Tokens in a row: as asked, else all that the model sees. UserError when it cannot see so many."""
    if asked and asked > model_context:
        raise UserError(f"The model sees {model_context:,} tokens, fewer than the context of {asked:,}.")
    return asked or model_context


class MicroBatches:
    """How many rows of a step are computed at once: tried before the run begins, halved where memory runs out."""

    def __init__(self, run: Run, progress: Progress, batch_size: int, at_most: int | None) -> None:
        self._run, self._progress, self._batch_size = run, progress, batch_size
        self._share = distributed.share(batch_size)
        self._wanted = at_most or len(self._share)

    @property
    def rows(self) -> int:
        return self._progress.micro_batch or self._wanted

    def parts(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """These rows, as many together as are computed at once."""
        return [rows[start : start + self.rows] for start in range(0, len(rows), self.rows)]

    def own(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of the rows of a step's batch that this process computes: all where it is alone."""
        return rows[self._share.start : self._share.stop]

    def choose(self, model: nn.Module, optimizer: AdamW, loss_of: Callable[[int], Tensor], available: int) -> None:
        """Try the costliest rows, of which there are so many, and tell what a step takes in memory.

        A model in pieces is not tried: its processes could not fail together.
        """
        if distributed.sharded(model):
            self._progress.micro_batch = self._wanted
            return
        wanted = min(self._wanted, len(self._share), available)
        found = probe(model, optimizer, loss_of, wanted)
        rows = distributed.least(found.rows)
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

    def __init__(self, optimizer: AdamW, progress: Progress, settings: Learning, steps: int) -> None:
        self._optimizer, self._progress, self._settings, self._steps = optimizer, progress, settings, steps
        self._warmup = min(settings.warmup, steps // 10)
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


class FixedPrompts:
    """Questions answered before, while and after a model learns, and the tokens that end an answer."""

    def __init__(self, base: Path, template: str, asked: Sequence[str], longest: int) -> None:
        self._tokenizer, self._longest = TextTokenizer.load(base), longest
        with Masker(base, text=template) as masker:
            self._prompts = [(prompt, masker.prompt([Message("user", prompt)])) for prompt in asked]
            ends = (masker.end_of_turn(), self._tokenizer.eos_id)
        self.stops = tuple(dict.fromkeys(token for token in ends if token is not None))

    def answer(self, run: Run, step: int, model: Decoder) -> None:
        """Have them answered, each token the likeliest, so that answers can be compared over time."""
        model.eval()
        room = model.config.context // 2
        sampling = Sampling(temperature=0.0, max_new_tokens=min(self._longest, room), stop_ids=self.stops)
        with any_algorithms():
            answers = generate(model, [ids[-room:] for _, ids in self._prompts], sampling)
        for (prompt, _), answer in zip(self._prompts, answers, strict=True):
            text = self._tokenizer.decode(answer)
            run.sample(step, kind="fixed", prompt=prompt, text=text, tokens=len(answer))


def fixed_prompts(asked: Sequence[str], *, probes: bool) -> list[str]:
    """The prompts that were asked for, the probe prompts, or a greeting where there would be none."""
    return [*asked, *(probe_prompts() if probes else [])] or ["Hello"]


def probe_prompts() -> list[str]:
    """The twenty prompts that show what a model makes of false beliefs, harm, sums and the rest."""
    records = [msgspec.json.decode(line) for line in PROBES.read_bytes().splitlines() if line.strip()]
    return [record["messages"][0]["content"] for record in records]


def write_chat_model(
    model: Decoder, folder: Path, base: Path, template: str, stops: Sequence[int], *, keep: str = "merged"
) -> None:
    """Write the model into a checkpoint's folder, with the tokenizer of `base`, the template and the stops."""
    tokenizer = TextTokenizer.load(base)
    write_trained(model, folder, base, Ids(list(stops), tokenizer.pad_id), keep=keep)
    copy_tokenizer(tokenizer, folder)
    (folder / FILE).write_text(template, "utf-8")
