"""Instruction tuning: a decoder learns to say what the assistant says.

    L(θ) = − 1/M Σ_{x ∈ B} Σ_t m_t log p_θ(x_{t+1} | x_{≤t}),    M = Σ_{x ∈ B} Σ_t m_t

over the conversations x of a step's batch B, written as tokens by a chat template; m_t is 1 where x_{t+1} belongs to
the assistant's turn, its end included, and 0 elsewhere. Conversations lie packed in rows, where none sees another, or
padded. One step adds the gradients of its micro-batches and makes one AdamW update. Source: Ouyang et al., Training
language models to follow instructions with human feedback (arXiv 2203.02155), step 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import assets
from stages.adapting import Ids, config_of, freeze_in, open_adapted, open_whole, write_trained
from stages.data.conversation_shards import ConversationSet, conversation_shards
from stages.data.conversations import Masker, choose_template
from stages.data.packs import Batch, Rows
from stages.data.templates import FILE
from stages.data.tokenizer import TextTokenizer, copy_tokenizer
from stages.generate import Sampling, generate
from stages.loop import (
    Divergence,
    Pace,
    Progress,
    any_algorithms,
    cosine_lr,
    find_resume,
    honour,
    load_resume,
    log_interval,
    read_progress,
    save_checkpoint,
    set_up_torch,
)
from stages.memory import Parts, does_not_fit, forget_gradients, is_out_of_memory, probe
from stages.models.decoder import Decoder
from stages.models.loss import IGNORED
from stages.optim import AdamW
from stages.precision import choose_precision
from stages.run import Run
from stages.store.checkpoints import best_checkpoint
from stages.store.errors import UserError
from stages.store.records import Message
from stages.store.sizes import flops_per_token, parameter_count
from stages.store.specs.sft import SFT

LR_TIMES_WIDTH = 0.128
"""Peak rate times width: 1e-3 at width 128, a third of what pre-training uses. Other widths follow by the same rule."""

LORA_LR = 4
"""Adapters take several times the rate of whole weights; published recipes go from two to ten times."""

PROBES = Path(assets.__file__).parent / "starter" / "probes.jsonl"


def run(run: Run) -> dict[str, Any]:
    """Train until the last step; what was reached."""
    job = prepare(run)
    if job.progress.step == 0 and job.settings.sample_every:
        job.sample()
    while job.progress.step < job.steps:
        honour(run, job.save, job.progress)
        loss, norm, lr = job.step()
        job.log(loss, norm, lr)
        if job.due(job.settings.checkpoint_every):
            job.save()
    job.save(whole=True)
    return job.result()


def prepare(run: Run) -> Job:
    """Mask the conversations, load the model or resume it, try its memory, and restore the random numbers last."""
    settings = run.settings(SFT)
    device = set_up_torch(run, deterministic=settings.deterministic)
    base = run.checkpoint()
    config = config_of(base, settings.dropout)
    room = context_of(settings, config.context)
    template = choose_template(base, settings.template)
    data = read_conversations(run, base, template, settings, room)
    rows = [Rows(split, room, settings.seed, packed=settings.packing) for split in (data.train, data.val)]

    checkpoint = find_resume(run)
    if checkpoint:
        progress = read_progress(checkpoint)
    else:
        precision = choose_precision(settings.precision, device)
        progress = Progress(lr=peak_lr(settings, config.width), precision=precision.name)
    precision = choose_precision(progress.precision, device)
    source = checkpoint.path if checkpoint else None
    if settings.method == "lora":
        model = open_adapted(base, source, settings, device, config)
    else:
        model = open_whole(source or base, device, config)
    model.checkpointing = settings.activation_checkpointing
    optimizer = AdamW(
        model,
        betas=(settings.beta1, settings.beta2),
        weight_decay=settings.weight_decay,
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
    )
    lineage = checkpoint.lineage() if checkpoint else None
    metrics = dict(lineage.metrics) if lineage else {}
    job = Job(run, settings, model, optimizer, base, template, data, rows[0], rows[1], progress, metrics)
    if progress.micro_batch is None:
        job.choose_micro_batch()
    torch.manual_seed(settings.seed)
    if checkpoint:
        load_resume(checkpoint, optimizer)
    return job


def peak_lr(settings: SFT, width: int) -> float:
    """The peak learning rate in force."""
    return settings.lr or LR_TIMES_WIDTH / width * (LORA_LR if settings.method == "lora" else 1)


def context_of(settings: SFT, model_context: int) -> int:
    """Tokens in a row; UserError when the model cannot see so many."""
    if settings.context and settings.context > model_context:
        raise UserError(f"The model sees {model_context:,} tokens, fewer than the context of {settings.context:,}.")
    return settings.context or model_context


def read_conversations(run: Run, base: Path, template: str, settings: SFT, room: int) -> ConversationSet:
    """The run's dataset in tokens. What was cut or refused is told; UserError when nothing is left to learn from."""

    def masking(done: int, total: int) -> None:
        run.progress(done, total, unit="conversations", phase="masking")

    dataset = run.dataset()
    data = conversation_shards(dataset, base, template=template, turns=settings.turns, context=room, progress=masking)
    refused = sum(split.refused for split in data.info.splits.values())
    named = "; ".join(str(each) for each in data.info.refused[:3])
    if len(data.train) == 0:
        raise UserError(f"No conversation of {dataset.name!r} can be trained on: {named or 'it has none'}.")
    every = sum(dataset.info.records.values())
    if refused:
        run.warn(f"{refused:,} of {every:,} conversations are left out: {named}{' …' if refused > 3 else ''}")
    cut = sum(split.cut for split in data.info.splits.values())
    if cut:
        turns = sum(split.turns_cut for split in data.info.splits.values())
        run.warn(f"{cut:,} of {every:,} conversations exceed {room:,} tokens and lost {turns:,} turns at their end.")
    if len(data.val) == 0:
        run.warn(f"{dataset.name!r} has no validation part, so nothing tells how well the model does on new questions.")
    return data


@dataclass
class Job:
    """A run of instruction tuning at work. `metrics` is the latest validation, of the checkpoint when it resumes."""

    run: Run
    settings: SFT
    model: Decoder
    optimizer: AdamW
    base: Path
    template: str
    data: ConversationSet
    train: Rows
    validation: Rows
    progress: Progress
    metrics: dict[str, float]

    def __post_init__(self) -> None:
        self.device = self.model.tokens.device
        self.tokenizer = TextTokenizer.load(self.base)
        per_epoch = len(self.train) / self.settings.batch_size
        self.steps = self.settings.steps or max(1, math.ceil(self.settings.epochs * per_epoch))
        self.warmup = min(self.settings.warmup, self.steps // 10)
        self.divergence = Divergence(self.progress)
        self.log_every = log_interval(self.settings.log_every, self.steps)
        self.eval_every = log_interval(self.settings.eval_every, self.steps)
        self.pace = Pace(self.device, self.progress.precision, flops_per_token(self.model.config))
        self._last_evaluation = -1
        self.prompts, self.end_of_turn = self._ask()

    @property
    def micro_batch(self) -> int:
        """Rows computed at once."""
        return self.progress.micro_batch or self.settings.micro_batch or self.settings.batch_size

    def choose_micro_batch(self) -> None:
        """Try the costliest rows, and tell what a step takes in memory."""
        wanted = min(self.settings.micro_batch or self.settings.batch_size, self.settings.batch_size, len(self.train))

        def loss_of(rows: int) -> Tensor:
            return self.loss(self.train.batch(self.train.costliest(rows), self.tokenizer.pad_id))

        self.run.report(self.progress.step, self.steps, phase="trying the memory")
        found = probe(self.model, self.optimizer, loss_of, wanted)
        chosen = self.settings.micro_batch or self.settings.batch_size
        self.progress.micro_batch = found.rows if found.rows < wanted else chosen
        self._tell_memory(found)

    def step(self) -> tuple[float, float, float]:
        """One update: loss in nats before it, the gradient's norm, and the learning rate. Halves what does not fit."""
        while True:
            try:
                return self._step()
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            self._halve()  # here the failed step's tensors are gone

    def _step(self) -> tuple[float, float, float]:
        settings, step = self.settings, self.progress.step
        rows = self.train.order(step * settings.batch_size, settings.batch_size)
        batches = [self.train.batch(part, self.tokenizer.pad_id) for part in _parts(rows, self.micro_batch)]
        trained = sum(_trained(batch) for batch in batches)
        tokens = sum(batch.real for batch in batches)
        with self.pace.step(tokens):
            self.model.train()
            loss = 0.0
            for number, batch in enumerate(batches):
                micro_loss = self.loss(batch) * (_trained(batch) / trained)
                micro_loss.backward()
                self.optimizer.gather(first=number == 0)
                loss += micro_loss.item()
            norm = self.optimizer.clip(settings.clip)
            self.divergence.watch(step + 1, loss, norm)
            peak = self.progress.lr
            floor = peak * settings.min_lr_ratio
            lr = cosine_lr(step, peak=peak, floor=floor, warmup=self.warmup, total=self.steps)
            self.optimizer.step(lr)
        self.progress.step += 1
        self.progress.tokens_seen += tokens
        return loss, norm, lr

    def loss(self, batch: Batch) -> Tensor:
        """Mean −log p over the trained targets of a batch, in nats."""
        tokens, targets = (torch.from_numpy(part).to(self.device) for part in (batch.tokens, batch.targets))
        documents = None if batch.documents is None else torch.from_numpy(batch.documents).to(self.device)
        return self.model(tokens, targets, documents)

    def log(self, loss: float, norm: float, lr: float) -> None:
        """Report the step, evaluate and sample when it is time, and append a row of metrics."""
        step, settings = self.progress.step, self.settings
        self.run.report(step, self.steps)
        row = {"train/loss": loss, "grad_norm": norm, "lr": lr, "tokens": float(self.progress.tokens_seen)}
        evaluated = self.due(self.eval_every)
        if evaluated:
            row |= self.evaluate(whole=step == self.steps)
        if evaluated or self.due(self.log_every):
            epoch = step * settings.batch_size / len(self.train)
            self.run.log_metrics(step, row | self.pace.row() | {"epoch": epoch})
        if settings.sample_every and self.due(settings.sample_every):
            self.sample()

    def due(self, every: int) -> bool:
        """Whether something done every so many steps, and at the end, is to be done now."""
        return self.progress.step % every == 0 or self.progress.step == self.steps

    @torch.no_grad()
    def evaluate(self, *, whole: bool) -> dict[str, float]:
        """Validation loss in nats a trained token, over about eval_tokens or all; nothing when there are none."""
        self.model.eval()
        rows = np.arange(len(self.validation))
        if not whole:
            tokens = int(self.data.val.lengths.sum())
            rows = rows[: max(1, round(len(rows) * min(1.0, self.settings.eval_tokens / max(1, tokens))))]
        total = count = 0.0
        for part in _parts(rows, self.micro_batch):
            batch = self.validation.batch(part, self.tokenizer.pad_id)
            total += self.loss(batch).item() * _trained(batch)
            count += _trained(batch)
        self._last_evaluation = self.progress.step
        if not count:
            return {}
        self.divergence.watch_validation(self.progress.step, total / count)
        self.metrics = {"val/loss": total / count}
        return self.metrics

    def sample(self) -> None:
        """Have the fixed prompts answered, each token the likeliest, so that answers can be compared over time."""
        self.model.eval()
        room = self.model.config.context // 2
        length = min(self.settings.sample_tokens, room)
        sampling = Sampling(temperature=0.0, max_new_tokens=length, stop_ids=self._stops())
        with any_algorithms():
            answers = generate(self.model, [ids[-room:] for _, ids in self.prompts], sampling)
        for (prompt, _), answer in zip(self.prompts, answers, strict=True):
            text = self.tokenizer.decode(answer)
            self.run.sample(self.progress.step, prompt=prompt, text=text, tokens=len(answer))

    def save(self, *, whole: bool = False) -> None:
        """Write a checkpoint of this step, evaluated, unless there is one or the loss is on its way up."""
        name = f"step-{self.progress.step}"
        if self.run.state.last_checkpoint == name or self.progress.step == 0:
            return
        if self.divergence.suspicious():
            self.run.warn(f"No checkpoint at step {self.progress.step}: the loss is rising.")
            return
        if self._last_evaluation != self.progress.step and (found := self.evaluate(whole=whole)):
            self.run.log_metrics(self.progress.step, found)
        save_checkpoint(self.run, self.progress, self.optimizer, self._write_model, self.metrics)

    def result(self) -> dict[str, Any]:
        """The closing figures."""
        best = best_checkpoint(self.run.dir)
        counts = self.data.info.splits["train"]
        return {
            "checkpoint": self.run.state.last_checkpoint,
            "best": best.name if best else None,
            "parameters": parameter_count(self.model.config).total,
            "tokens_seen": self.progress.tokens_seen,
            "conversations": counts.conversations,
            "trained_share": counts.trained / counts.tokens,
            "filled": self.train.filled if self.train.packed else None,
            "micro_batch": self.micro_batch,
            "precision": self.progress.precision,
            **self.metrics,
        }

    def _ask(self) -> tuple[list[tuple[str, list[int]]], int | None]:
        """The fixed prompts in tokens, and the token that ends a turn."""
        asked = [*self.settings.sample_prompts, *(probe_prompts() if self.settings.probes else [])]
        if not asked and len(self.data.val):
            asked = ["Hello"]
        with Masker(self.base, text=self.template) as masker:
            prompts = [(prompt, masker.prompt([Message("user", prompt)])) for prompt in asked]
            return prompts, masker.end_of_turn()

    def _stops(self) -> tuple[int, ...]:
        """Tokens that end an answer: the end of turn, then the end of text."""
        return tuple(dict.fromkeys(t for t in (self.end_of_turn, self.tokenizer.eos_id) if t is not None))

    def _halve(self) -> None:
        """Compute half as many rows at once from here on; the batch of a step stays."""
        forget_gradients(self.model)
        rows = min(self.micro_batch, self.settings.batch_size)
        if rows == 1:
            raise does_not_fit()
        self.progress.micro_batch = rows // 2
        self.run.warn(
            f"Memory ran out at step {self.progress.step + 1}: from here on {rows // 2:,} rows are computed at once "
            f"instead of {rows:,}. A step still sees {self.settings.batch_size:,}."
        )

    def _tell_memory(self, found: Parts) -> None:
        self.run.event("memory", **found._asdict(), total=found.total)
        parts = ", ".join(f"{name} {value / 1e6:,.0f} MB" for name, value in found._asdict().items() if name != "rows")
        print(f"memory of a step over {found.rows:,} rows at once: {parts}", flush=True)

    def _write_model(self, folder: Path) -> None:
        ids = Ids(list(self._stops()), self.tokenizer.pad_id)
        write_trained(self.model, folder, self.base, ids, keep=self.settings.lora_keep)
        copy_tokenizer(self.tokenizer, folder)
        (folder / FILE).write_text(self.template, "utf-8")


def probe_prompts() -> list[str]:
    """The twenty prompts that show what a model makes of false beliefs, harm, sums and the rest."""
    records = [msgspec.json.decode(line) for line in PROBES.read_bytes().splitlines() if line.strip()]
    return [record["messages"][0]["content"] for record in records]


def _parts(rows: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _trained(batch: Batch) -> int:
    return int((batch.targets != IGNORED).sum())
