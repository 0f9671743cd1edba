"""Pre-training: a decoder learns to predict each next token of a text.

    L(θ) = − 1/|B| Σ_{x ∈ B} 1/T Σ_{t=1..T} log p_θ(x_{t+1} | x_{≤t})

over blocks of T + 1 tokens, documents joined by the end-of-text token. One step adds the gradients of its
micro-batches, clips their norm, and makes one AdamW update with a warm-up and cosine schedule. Source: Radford et al.,
Language Models are Unsupervised Multitask Learners (2019), with the optimiser settings of GPT-3 (arXiv 2005.14165, B).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from stages.data.packing import Blocks, TokenSet, token_shards
from stages.data.tokenizer import TextTokenizer, copy_tokenizer
from stages.generate import Sampling, generate
from stages.loop import (
    Divergence,
    Pace,
    Progress,
    any_algorithms,
    by_leader,
    cosine_lr,
    find_resume,
    honour,
    load_resume,
    log_interval,
    read_progress,
    save_checkpoint,
    set_up_torch,
    worth_saving,
)
from stages.models.decoder import Decoder, new_decoder
from stages.models.hf import load_model, save_weights
from stages.optim import AdamW
from stages.run import Run
from stages.store.checkpoints import best_checkpoint
from stages.store.errors import UserError
from stages.store.presets import ModelConfig
from stages.store.shape import model_config, peak_lr
from stages.store.sizes import flops_per_token, parameter_count, training_memory
from stages.store.specs.pretrain import Pretrain
from stages.training import distributed
from stages.training.precision import choose_precision

AnyJob = TypeVar("AnyJob", bound="Job")

EVALUATION_TOKENS = 4_096
"""Tokens validated at once, where a micro-batch has fewer."""

PROMPT_TOKENS = 16
"""Length of the prompt that is taken from the validation text when none is given."""


def run(run: Run) -> dict[str, Any]:
    """Train until the last step; what was reached."""
    job = prepare(run)
    while job.progress.step < job.settings.steps:
        honour(run, job.save, job.progress)
        loss, norm, lr = job.step()
        job.log(loss, norm, lr)
        if job.due(job.settings.checkpoint_every):
            job.save()
    job.save(whole=True)
    return job.result()


def prepare(run: Run) -> Job:
    """A run of next-token prediction, ready for its next step."""
    return assemble(run, run.settings(Pretrain), Job, new_decoder, load_model)


def assemble(
    run: Run, settings: Pretrain, job: type[AnyJob], new: Callable[..., Any], load: Callable[..., Any]
) -> AnyJob:
    """Load the data, make the model or resume it, and leave the random numbers where training needs them.

    `new` and `load` make the model, as `new_decoder` and `load_model` do.
    """
    device = set_up_torch(run, deterministic=settings.deterministic)
    tokenizer = TextTokenizer.load(run.tokenizer().path)
    config = model_config(settings, tokenizer.vocab_size)
    checkpoint = find_resume(run)
    if checkpoint:
        progress = read_progress(checkpoint)
    else:
        precision = choose_precision(settings.precision, device)
        progress = Progress(lr=peak_lr(settings, config), precision=precision.name)
    precision = choose_precision(progress.precision, device)
    sharding = choose_sharding(config, settings, progress.precision, device)
    tokens, train, validation = open_blocks(run, job.text_tokens(settings, config), settings.seed)

    place = "cpu" if sharding == "fsdp" else device
    model = (
        load(checkpoint.path, device=place, config=config) if checkpoint else new(config, settings.seed, device=place)
    )
    if sharding == "fsdp":
        distributed.cut(model, device, precision.dtype)
    optimizer = AdamW(
        model,
        betas=(settings.beta1, settings.beta2),
        weight_decay=settings.weight_decay,
        compute_dtype=precision.dtype,
    )
    parameters = parameter_count(config).total
    run.event(
        "model",
        parameters=parameters,
        device=device.type,
        precision=precision.name,
        why=precision.why,
        **distributed.told_of(sharding),
    )
    distributed.seed(settings.seed)
    if checkpoint:
        load_resume(checkpoint, optimizer)
    lineage = checkpoint.lineage() if checkpoint else None
    metrics = dict(lineage.metrics) if lineage else {}
    return job(run, settings, model, optimizer, tokenizer, tokens, train, validation, progress, metrics)


def open_blocks(run: Run, context: int, seed: int) -> tuple[TokenSet, Blocks, Blocks]:
    """The run's tokens, encoded if they are not yet, and their blocks for training and validation."""
    dataset = run.dataset()

    def encoding(done: int, total: int) -> None:
        run.progress(done, total, unit="bytes", phase="encoding")

    tokens = token_shards(dataset, run.tokenizer(), encoding)
    train, validation = Blocks(tokens.train, context, seed), Blocks(tokens.val, context, seed)
    for part, blocks in (("training", train), ("validation", validation)):
        if len(blocks) == 0:
            raise UserError(
                f"The {part} part of {dataset.name!r} is shorter than one block of {context + 1} tokens.",
                "Build the dataset with a larger split, add text, or choose a smaller context.",
            )
    return tokens, train, validation


def choose_sharding(config: ModelConfig, settings: Pretrain, precision: str, device: torch.device) -> str:
    """What each process holds, ddp or fsdp; UserError when training would need more memory than is free."""
    rows = min(settings.sequences_at_once, len(distributed.share(settings.batch_size)))
    need = training_memory(config, rows, dtype=precision)
    return distributed.choose_sharding(settings.sharding, need.total, need.activations, device)


@dataclass
class Job:
    """A pre-training run at work. `metrics` is the latest validation, of the checkpoint when it resumes from one."""

    run: Run
    settings: Pretrain
    model: Decoder
    optimizer: AdamW
    tokenizer: TextTokenizer
    tokens: TokenSet
    train: Blocks
    validation: Blocks
    progress: Progress
    metrics: dict[str, float]

    @classmethod
    def text_tokens(cls, settings: Any, config: ModelConfig) -> int:
        """Tokens of text in a block: as many as the model sees at once."""
        return config.context

    def __post_init__(self) -> None:
        self.device = self.model.tokens.device
        self.micro_batch = self.settings.sequences_at_once
        self.divergence = Divergence(self.progress)
        self.log_every = log_interval(self.settings.log_every, self.settings.steps)
        self.eval_every = log_interval(self.settings.eval_every, self.settings.steps)
        self.pace = Pace(self.device, self.progress.precision, flops_per_token(self.model.config))
        self._last_evaluation = -1

    def step(self) -> tuple[float, float, float]:
        """One update: loss in nats before it, the gradient's norm, and the learning rate."""
        with self.pace.step(self.settings.batch_size * self.model.config.context):
            return self._step()

    def _step(self) -> tuple[float, float, float]:
        settings, step = self.settings, self.progress.step
        self.model.train()
        loss = 0.0
        rows = distributed.share(settings.batch_size)
        for start in range(rows.start, rows.stop, self.micro_batch):
            count = min(self.micro_batch, rows.stop - start)
            share = count / settings.batch_size
            micro_loss = self._train_loss(start, count) * share
            micro_loss.backward()
            self.optimizer.gather(first=start == rows.start)
            loss += micro_loss.item()
        (loss,) = distributed.total(loss)
        norm = self.optimizer.clip(settings.clip)
        self.divergence.watch(step + 1, loss, norm)
        peak = self.progress.lr
        lr = cosine_lr(
            step, peak=peak, floor=peak * settings.min_lr_ratio, warmup=settings.warmup, total=settings.steps
        )
        self.optimizer.step(lr)
        self.progress.step += 1
        self.progress.tokens_seen += settings.batch_size * self.model.config.context
        return loss, norm, lr

    def log(self, loss: float, norm: float, lr: float) -> None:
        """Report the step, evaluate and sample when it is time, and append a row of metrics."""
        step, settings = self.progress.step, self.settings
        self.run.report(step, settings.steps)
        row = {"train/loss": loss, "grad_norm": norm, "lr": lr, "tokens": float(self.progress.tokens_seen)}
        evaluated = self.due(self.eval_every)
        if evaluated:
            row |= self.evaluate(whole=step == settings.steps)
        if evaluated or self.due(self.log_every):
            self.run.log_metrics(step, row | self.pace.row())
        if settings.sample_every and self.due(settings.sample_every):
            by_leader(self.model, self.sample)

    def due(self, every: int) -> bool:
        """Whether something done every so many steps, and at the end, is to be done now."""
        return self.progress.step % every == 0 or self.progress.step == self.settings.steps

    @torch.no_grad()
    def evaluate(self, *, whole: bool) -> dict[str, float]:
        """Validation loss in nats a token, and in bits a byte of text, over eval_tokens or all of it."""
        self.model.eval()
        count = len(self.validation)
        if not whole:
            count = min(count, max(1, self.settings.eval_tokens // self.model.config.context))
        together = max(self.micro_batch, EVALUATION_TOKENS // self.model.config.context)
        nats = self._validation_nats(count, together) / count
        self.divergence.watch_validation(self.progress.step, nats)
        tokens_per_byte = len(self.tokens.val) / self.tokens.val_bytes
        self.metrics = {"val/loss": nats, "val/bits_per_byte": nats * tokens_per_byte / math.log(2)}
        self._last_evaluation = self.progress.step
        return self.metrics

    def _validation_nats(self, count: int, together: int) -> float:
        """The sum of the mean losses of the first `count` validation blocks, so many computed at once."""
        total = 0.0
        for start in range(0, count, together):
            blocks = self.validation.in_order(start, min(together, count - start))
            total += self._loss(blocks).item() * len(blocks)
        return total

    def sample(self) -> None:
        """Continue the fixed prompts, always with the same random numbers, so that texts can be compared over time."""
        self.model.eval()
        prompts = self.settings.sample_prompts or [self.tokenizer.decode(self.tokens.val[:PROMPT_TOKENS].tolist())]
        room = self.model.config.context // 2
        ids = [self.tokenizer.encode(prompt)[-room:] or [self.tokenizer.eos_id] for prompt in prompts]
        sampling = Sampling(temperature=0.8, top_k=50, max_new_tokens=self.settings.sample_tokens, seed=0)
        for prompt, completion in zip(prompts, self._continued(ids, sampling), strict=True):
            text = self.tokenizer.decode(completion)
            self.run.sample(self.progress.step, prompt=prompt, text=text, tokens=len(completion))

    def _continued(self, prompts: list[list[int]], sampling: Sampling) -> list[list[int]]:
        """What the model writes after each prompt."""
        with any_algorithms():
            return generate(self.model, prompts, sampling)

    def save(self, *, whole: bool = False) -> None:
        """Write a checkpoint of this step, evaluated, unless there is one or the loss is on its way up."""
        if not worth_saving(self.run, self.progress, self.divergence):
            return
        if self._last_evaluation != self.progress.step:
            self.run.log_metrics(self.progress.step, self.evaluate(whole=whole))
        save_checkpoint(self.run, self.progress, self.optimizer, self._write_model, self.metrics, state=self._state())

    def result(self) -> dict[str, Any]:
        """The closing figures."""
        best = best_checkpoint(self.run.dir)
        return {
            "checkpoint": self.run.state.last_checkpoint,
            "best": best.name if best else None,
            "parameters": parameter_count(self.model.config).total,
            "tokens_seen": self.progress.tokens_seen,
            "precision": self.progress.precision,
            **self.metrics,
        }

    def _write_model(self, folder: Path) -> None:
        save_weights(self.model, folder, eos_id=self.tokenizer.eos_id, pad_id=self.tokenizer.pad_id)
        copy_tokenizer(self.tokenizer, folder)

    def _train_loss(self, start: int, count: int) -> Tensor:
        """The loss in nats on the rows from `start` on of this step's batch."""
        return self._loss(self.train.batch(self.progress.step * self.settings.batch_size + start, count))

    def _state(self) -> dict[str, Tensor]:
        """What the model carries from step to step."""
        return {}

    def _loss(self, blocks: Any) -> Tensor:
        """The model's loss in nats on blocks of text."""
        loss: Tensor = self.model(*self._batch(blocks))
        return loss

    def _batch(self, blocks: Any) -> tuple[Tensor, ...]:
        """Inputs and targets (B, T) of blocks (B, T + 1)."""
        tokens = torch.from_numpy(blocks).to(self.device, non_blocking=True)
        return tokens[:, :-1], tokens[:, 1:]
