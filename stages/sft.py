"""Instruction tuning: a decoder learns to say what the assistant says.

    L(θ) = − 1/M Σ_{x ∈ B} Σ_t m_t log p_θ(x_{t+1} | x_{≤t}),    M = Σ_{x ∈ B} Σ_t m_t

over the conversations x of a step's batch B, written as tokens by a chat template; m_t is 1 where x_{t+1} belongs to
the assistant's turn, its end included, and 0 elsewhere. Conversations lie packed in rows, where none sees another, or
padded. One step adds the gradients of its micro-batches and makes one AdamW update. Source: Ouyang et al., Training
language models to follow instructions with human feedback (arXiv 2203.02155), step 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from stages.data.conversation_shards import ConversationSet, conversation_shards
from stages.data.conversations import choose_template
from stages.data.packing import Batch, Rows
from stages.data.tokenizer import TextTokenizer
from stages.loop import Progress, set_up_torch
from stages.models.decoder import Decoder
from stages.models.loss import IGNORED
from stages.run import Run
from stages.store import compute
from stages.store.errors import UserError
from stages.store.sizes import parameter_count
from stages.store.specs.sft import SFT
from stages.training import distributed
from stages.training.adapting import config_of
from stages.training.course import Course
from stages.training.opening import Opened, length_seen, peak_lr
from stages.training.tuning import FixedPrompts, fixed_prompts, open_model, room_for, write_chat_model
from stages.training.updates import Update

LR_TIMES_WIDTH = 0.128
"""Peak rate times width: 1e-3 at width 128, a third of what pre-training uses. Other widths follow by the same rule."""


def run(run: Run) -> dict[str, Any]:
    """Train until the last step; what was reached."""
    return train(prepare(run))


def train(job: Job) -> dict[str, Any]:
    """Train until the last step; what was reached."""
    if job.progress.step == 0:
        job.course.sample()
    job.course.follow(job)
    return job.result()


def prepare(run: Run) -> Job:
    """A job of instruction tuning, ready for its next step."""
    return open_job(run, run.settings(SFT), read_conversations)


class Aim(Protocol):
    """What a step follows the gradient of, where that is not the loss alone."""

    @property
    def flops(self) -> float:
        """Floating-point operations for each token."""

    def begin(self) -> None:
        """A step begins. What was seen before it, or in a step that did not fit, is none of its figures."""

    def objective(self, batch: Batch) -> Tensor:
        """Its value is the loss of the batch in nats, its gradient the one to follow."""

    def figures(self) -> dict[str, float]:
        """What the last step is to log beside the loss."""


def open_job(
    run: Run, settings: SFT, read: Callable[..., ConversationSet], aim: Callable[[Job], Aim] | None = None
) -> Job:
    """Read the data, load the model or resume it, try its memory, and restore the random numbers last.

    aim: makes what the job follows in place of the loss.
    """
    device = set_up_torch(run, deterministic=settings.deterministic)
    base = run.checkpoint()
    config = config_of(base, settings.dropout)
    room = room_for(settings.context, config.context)
    template = choose_template(base, settings.template)
    data = read(run, base, template, settings, room)
    train, validation = (Rows(split, room, settings.seed, packed=settings.packing) for split in (data.train, data.val))
    lr = peak_lr(settings, config.width, times_width=LR_TIMES_WIDTH)
    opened = open_model(run, settings, base, config, device, Progress, lr=lr)
    job = Job(run, settings, opened, base, template, data, train, validation)
    if aim:
        job.aim = aim(job)
        job.course.work = compute.Work(job.aim.flops)
    job.course.make_ready(job)
    return job


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
    """A run of instruction tuning at work."""

    run: Run
    settings: SFT
    opened: Opened[Decoder, Progress]
    base: Path
    template: str
    data: ConversationSet
    train: Rows
    validation: Rows

    def __post_init__(self) -> None:
        settings, self.model, self.progress = self.settings, self.opened.model, self.opened.progress
        self.device = self.model.tokens.device
        self.tokenizer = TextTokenizer.load(self.base)
        asked = fixed_prompts(settings.sample_prompts, probes=settings.probes)
        self.prompts = FixedPrompts(self.base, self.template, asked, settings.sample_tokens)
        self.course = Course(
            self.run,
            settings,
            self.opened,
            self.model.config,
            compute.Work(self.flops(1.0)),
            len(self.train),
            sample=self.sample,
            sample_every=settings.sample_every,
        )
        self.memory = self.course.memory
        self.aim: Aim | None = None

    def flops(self, head: float) -> float:
        """Floating-point operations to train on a token of a conversation, which sees no other.

        head: the share of tokens whose logits are computed. For the loss alone they are of all tokens.
        """
        frozen = self.settings.method == "lora"
        return compute.training(self.model.config, length_seen(self.data.train.lengths), head, frozen=frozen)

    def costliest(self, rows: int) -> Tensor:
        """The loss on those rows that take the most memory."""
        return self.objective(self.train.batch(self.train.costliest(rows), self.tokenizer.pad_id))

    def step(self) -> Update:
        """Make one update; a micro-batch that does not fit the memory is halved."""
        return self.memory.until_it_fits(self.model, self._step)

    def _step(self) -> Update:
        settings, step = self.settings, self.progress.step
        rows = self.memory.own(self.train.order(step * settings.batch_size, settings.batch_size))
        batches = [self.train.batch(part, self.tokenizer.pad_id) for part in self.memory.parts(rows)]
        counted = distributed.total(sum(map(_trained, batches)), sum(batch.real for batch in batches))
        trained, tokens = map(int, counted)
        with self.course.pace.step(tokens):
            self.model.train()
            if self.aim:
                self.aim.begin()
            losses = (self.objective(batch) * (_trained(batch) / trained) for batch in batches)
            made = self.course.updates.make(losses)
        self.progress.tokens_seen += tokens
        return made

    def objective(self, batch: Batch) -> Tensor:
        """What a step follows the gradient of: the loss, or what the aim makes of it."""
        return self.aim.objective(batch) if self.aim else self.loss(batch)

    def loss(self, batch: Batch) -> Tensor:
        """Mean −log p over the trained targets of a batch, in nats."""
        return self.model(*self.tensors(batch))

    def tensors(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
        """Tokens, targets and documents of a batch on the model's device."""
        tokens, targets = (torch.from_numpy(part).to(self.device) for part in (batch.tokens, batch.targets))
        documents = None if batch.documents is None else torch.from_numpy(batch.documents).to(self.device)
        return tokens, targets, documents

    def figures(self) -> dict[str, float]:
        """What the last step is to log beside the loss."""
        return self.aim.figures() if self.aim else {}

    @torch.no_grad()
    def evaluate(self, *, whole: bool) -> dict[str, float]:
        """Validation loss in nats a trained token, over about eval_tokens or all; nothing when there are none."""
        self.model.eval()
        rows = np.arange(len(self.validation))
        if not whole and len(rows):
            tokens = int(self.data.val.lengths.sum())
            some = max(1, round(len(rows) * min(1.0, self.settings.eval_tokens / tokens)))
            rows = np.arange(some) * len(rows) // some  # from all over: packed rows begin with the longest
        total = count = 0.0
        for part in self.memory.parts(rows):
            batch = self.validation.batch(part, self.tokenizer.pad_id)
            total += self.loss(batch).item() * _trained(batch)
            count += _trained(batch)
        return {"val/loss": total / count} if count else {}

    def sample(self) -> None:
        """Have the fixed prompts answered."""
        self.prompts.answer(self.run, self.progress.step, self.model)

    def result(self) -> dict[str, Any]:
        """The closing figures."""
        counts = self.data.info.splits["train"]
        return self.course.closing(
            parameters=parameter_count(self.model.config).total,
            conversations=counts.conversations,
            trained_share=counts.trained / counts.tokens,
            filled=self.train.filled if self.train.packed else None,
        )

    def write(self, folder: Path) -> None:
        """As transformers opens it, with the tokenizer and the chat template."""
        keep = self.settings.lora_keep
        write_chat_model(self.model, folder, self.base, self.template, self.prompts.stops, keep=keep)


def _trained(batch: Batch) -> int:
    return int((batch.targets != IGNORED).sum())
