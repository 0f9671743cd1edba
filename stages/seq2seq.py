"""Text-to-text fine-tuning: a T5 learns to write the answer to a text, whatever the task.

    L(θ) = − 1/M Σ_{(x, y) ∈ B} Σ_t log p_θ(y_t | y_{<t}, x),    M = Σ_{(x, y) ∈ B} |y|

over the pairs of a step's batch B, made of labelled records, conversations or prompts with answers
(`stages.data.pairs`). Validation asks for the answers as well, each token the likeliest: exact match is the share that
is right to the letter. Source: Raffel et al., T5 (arXiv 1910.10683), sections 2.4 and 3.1.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.asking.text_to_text import write
from stages.data.pairs import KINDS, Batch, Pairs, prefix_of, read_pairs
from stages.data.tokenizer import TextTokenizer, copy_tokenizer
from stages.generate import Sampling
from stages.loop import Progress, any_algorithms, set_up_torch
from stages.models.t5 import T5, load_t5, moved_right, save_t5, t5_config
from stages.run import Run
from stages.store import compute
from stages.store.errors import UserError
from stages.store.sizes import parameter_count
from stages.store.specs.seq2seq import Seq2Seq
from stages.training import distributed
from stages.training.course import Course
from stages.training.opening import Opened, begin, peak_lr
from stages.training.tuning import room_for
from stages.training.updates import Update

LR_TIMES_WIDTH = 0.128
"""Peak rate times width: a third of what pre-training uses, as for instruction tuning."""
SAMPLES = 5
"""Texts of validation that are answered when none are given."""


def run(run: Run) -> dict[str, Any]:
    """Train until the last step; what was reached."""
    job = prepare(run)
    job.course.follow(job)
    return job.result()


def prepare(run: Run) -> Job:
    """Read the pairs, load the model or resume it, try its memory, and restore the random numbers last."""
    settings = run.settings(Seq2Seq)
    device = set_up_torch(run, deterministic=settings.deterministic)
    base = run.checkpoint()
    config = msgspec.structs.replace(t5_config(base), dropout=settings.dropout)
    train, val = read_data(run, base, settings, room_for(settings.context, config.context))
    lr = peak_lr(settings, config.width, times_width=LR_TIMES_WIDTH)
    begun = begin(run, settings, device, Progress, lr=lr).fitting(config)
    source = begun.checkpoint.path if begun.checkpoint else base
    model = load_t5(source, torch.float32, begun.place, config)
    model.checkpointing = settings.activation_checkpointing
    opened = begun.optimise(model, parameters=parameter_count(config).total)
    job = Job(run, settings, opened, base, train, val)
    job.course.make_ready(job)
    return job


def read_data(run: Run, base: Path, settings: Seq2Seq, room: int) -> tuple[Pairs, Pairs]:
    """The pairs to train on and to validate with. What was cut or left out is told; UserError when none is left."""
    dataset = run.dataset()
    if dataset.info.kind not in KINDS:
        raise UserError(
            f"The dataset {dataset.name!r} holds records of kind {dataset.info.kind}, which have no answers.",
            "Choose labelled data, conversations, or prompts with answers.",
        )
    prefix, tokenizer = prefix_of(dataset, settings.prefix), TextTokenizer.load(base)
    total, done = sum(dataset.info.records.values()), 0

    def tokenizing(count: int) -> None:
        nonlocal done
        done += count
        run.progress(min(done, total), total, unit="records", phase="tokenizing")

    longest = settings.answer_tokens
    train, val = (
        Pairs(read_pairs(dataset, split, prefix), tokenizer, room=room, longest=longest, progress=tokenizing)
        for split in ("train", "val")
    )
    if not len(train):
        raise UserError(f"No record of {dataset.name!r} can be learnt from: none has an answer that is short enough.")
    every = len(train) + len(val)
    if cut := train.cut + val.cut:
        run.warn(f"{cut:,} of {every:,} texts exceed {room:,} tokens and are cut at their end.")
    if refused := train.refused + val.refused:
        run.warn(f"{refused:,} records are left out: their answers are empty or exceed {longest:,} tokens.")
    if not len(val):
        run.warn(f"{dataset.name!r} has no validation part, so nothing tells how well new texts are answered.")
    return train, val


@dataclass
class Job:
    """A run at work."""

    run: Run
    settings: Seq2Seq
    opened: Opened[T5, Progress]
    base: Path
    train: Pairs
    val: Pairs

    def __post_init__(self) -> None:
        self.model, self.progress = self.opened.model, self.opened.progress
        self.device = self.model.tokens.device
        self.tokenizer = TextTokenizer.load(self.base)
        self.prefix = prefix_of(self.run.dataset(), self.settings.prefix)
        self.course = Course(
            self.run,
            self.settings,
            self.opened,
            self.model.config,
            compute.Work(self.flops()),
            len(self.train),
            sample=self.sample,
            sample_every=self.settings.sample_every,
        )
        self.memory = self.course.memory

    def flops(self) -> float:
        """Floating-point operations to train on a token of the average pair, read or written."""
        size = float(self.train.sizes.mean())
        written = self.train.targets(np.arange(len(self.train))) / len(self.train)
        return compute.pair(self.model.config, size - written, written) / size

    def costliest(self, rows: int) -> Tensor:
        """The loss on those pairs that take the most memory."""
        return self.loss(self.train.batch(self.train.costliest(rows)))

    def step(self) -> Update:
        """Make one update; a micro-batch that does not fit the memory is halved."""
        return self.memory.until_it_fits(self.model, self._step)

    def _step(self) -> Update:
        settings = self.settings
        numbers = self.train.order(self.progress.step * settings.batch_size, settings.batch_size, settings.seed)
        wanted, tokens = self.train.targets(numbers), int(self.train.sizes[numbers].sum())
        with self.course.pace.step(tokens):
            self.model.train()
            made = self.course.updates.make(
                self.loss(self.train.batch(part)) * (self.train.targets(part) / wanted)
                for part in self.memory.parts(self.memory.own(numbers))
            )
        self.progress.tokens_seen += tokens
        return made

    def loss(self, batch: Batch) -> Tensor:
        """Mean −log p over the answers' tokens of a batch, in nats."""
        read_BS, lengths_B, targets_BT = (torch.from_numpy(part).to(self.device) for part in batch)
        loss: Tensor = self.model(read_BS, moved_right(targets_BT, self.tokenizer.pad_id), targets_BT, lengths_B)
        return loss

    def figures(self) -> dict[str, float]:
        """Nothing beside the loss."""
        return {}

    @torch.no_grad()
    def evaluate(self, *, whole: bool) -> dict[str, float]:
        """Loss in nats a token, and the share of answers that are right to the letter; over eval_records or all."""
        count = len(self.val) if whole else min(len(self.val), self.settings.eval_records)
        if not count:
            return {}
        self.model.eval()
        numbers = np.arange(count)
        nats = sum(
            self.loss(self.val.batch(part)).item() * self.val.targets(part) for part in self.memory.parts(numbers)
        )
        return {"val/loss": nats / self.val.targets(numbers), "val/exact_match": self._right(numbers) / count}

    def sample(self) -> None:
        """Answer the fixed texts, each token the likeliest, so that answers can be compared over time."""
        asked = [self.prefix + text for text in self.settings.sample_prompts]
        ids = [[*self.tokenizer.encode(text), self.tokenizer.eos_id] for text in asked]
        if not asked:
            ids = [self.val.read(number) for number in range(min(SAMPLES, len(self.val)))]
            asked = [self.tokenizer.decode(each) for each in ids]
        if not ids:
            return
        for prompt, answer in zip(asked, self._written(ids, self.settings.answer_tokens), strict=True):
            text = self.tokenizer.decode(answer)
            self.run.sample(self.progress.step, prompt=f"{prompt}\n", text=text, tokens=len(answer))

    def result(self) -> dict[str, Any]:
        """The closing figures."""
        return self.course.closing(
            parameters=parameter_count(self.model.config).total,
            pairs=len(self.train),
            prefix=self.prefix,
        )

    def _right(self, numbers: NDArray[np.int64]) -> int:
        """How many of these pairs' answers the model writes to the letter."""
        longest = max(len(self.val.written(int(number))) for number in numbers) + 1
        with distributed.whole(self.model):
            answers = self._written([self.val.read(int(number)) for number in numbers], longest)
        return sum(answer == self.val.written(int(number)) for number, answer in zip(numbers, answers, strict=True))

    def _written(self, ids: list[list[int]], longest: int) -> list[list[int]]:
        self.model.eval()
        with any_algorithms():
            sampling = Sampling(temperature=0.0, max_new_tokens=longest)
            return write(self.model, ids, sampling, start=self.tokenizer.pad_id, ends=[self.tokenizer.eos_id])

    def write(self, folder: Path) -> None:
        """As transformers opens it, with the tokenizer and the prefix of the task."""
        save_t5(
            self.model,
            folder,
            pad_id=self.tokenizer.pad_id,
            eos_id=self.tokenizer.eos_id,
            prefixes={self.run.dataset().name: self.prefix} if self.prefix else {},
        )
        copy_tokenizer(self.tokenizer, folder)
