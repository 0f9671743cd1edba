"""Pre-training, whatever the model is asked: opening or resuming, a step, validation. The loop is `Course`.

What is asked of text is an `Objective`. Each stands with its formula in the file of its stage; there is no base class.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.data.blocks import Blocks, TokenSet, token_shards
from stages.data.tokenizer import TextTokenizer, copy_tokenizer
from stages.loop import Progress, read_state, set_up_torch
from stages.run import Run
from stages.store.compute import Work
from stages.store.errors import UserError
from stages.store.presets import ModelConfig
from stages.store.shape import model_config, peak_lr
from stages.store.sizes import parameter_count
from stages.store.specs.pretrain import Pretrain
from stages.training import distributed
from stages.training.course import Course
from stages.training.opening import Opened, begin
from stages.training.updates import Update

S = TypeVar("S", bound=Pretrain)
SettingsT = TypeVar("SettingsT", bound=Pretrain, contravariant=True)

EVALUATION_TOKENS = 4_096
"""Tokens validated at once, where a micro-batch has fewer."""


@dataclass(frozen=True)
class Text:
    """The run's text in tokens and in blocks of them, one token longer than `length`, for `batch_size` rows a step."""

    tokens: TokenSet
    train: Blocks
    validation: Blocks
    length: int
    batch_size: int
    seed: int

    def batch(self, step: int, rows: range) -> NDArray[np.int64]:
        """These rows of the batch of the step after `step` steps: (rows, length + 1)."""
        return self.train.batch(step * self.batch_size + rows.start, len(rows))

    def whole_batch(self, step: int) -> tuple[NDArray[np.int64], torch.Generator]:
        """All rows of the batch of that step, and the random numbers of what is asked of them: in any process the same.

        So what a row is asked does not hang on how many rows are computed at once, or by how many processes.
        """
        digest = hashlib.blake2b(f"{self.seed}/{step}".encode(), digest_size=8).digest()
        drawn = torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
        return self.batch(step, range(self.batch_size)), drawn

    def part(self, rows: range) -> float:
        """The part of a step's batch that these rows are, where all rows are asked equally much."""
        return len(rows) / self.batch_size

    def validated(self, blocks: int, together: int) -> Iterator[NDArray[np.int64]]:
        """The first blocks of validation, so many together: (together, length + 1) each, the last one fewer."""
        for start in range(0, blocks, together):
            yield self.validation.in_order(start, min(together, blocks - start))


class Models(NamedTuple):
    """What makes a stage's model with random weights, and what loads it from a checkpoint."""

    new: Callable[..., Any]
    """As `new_decoder`."""
    load: Callable[..., Any]
    """As `load_model`."""


class Carried(Protocol):
    """What a model carries from step to step. What comes of a step counts from `keep` on, not while it is computed.

    So a step that is tried again begins with what it began with.
    """

    def keep(self) -> None:
        """The step is made."""

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold of it, of all processes, which must all come."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave, whatever the number of processes."""


class Objective(Protocol[SettingsT]):
    """What a stage asks of text: the model that learns it, its loss, and what tells how well it does.

    A loss is a mean in nats over what is asked. The model is in training mode for a step, and in evaluation mode,
    without gradients, for validation and samples.
    """

    def __init__(self, model: Any, settings: SettingsT, tokenizer: TextTokenizer, text: Text) -> None:
        """model: one of this stage, as it computes in training. Raises UserError for settings it cannot follow."""

    models: ClassVar[Models]

    @staticmethod
    def text_tokens(settings: SettingsT, config: ModelConfig) -> int:
        """Tokens of text in a block, the last, which is only predicted, left out."""

    @property
    def carried(self) -> Carried | None:
        """What goes on from step to step beside the weights."""

    def loss(self, step: int, rows: range) -> Tensor:
        """These rows' part of the loss on the batch of the step after `step` steps: the parts add up to it."""

    def flops(self) -> float:
        """Floating-point operations to train on one of a row's `context` tokens."""

    def costliest(self, rows: int) -> Tensor:
        """A loss that takes as much memory as any on so many rows can. It must leave nothing behind."""

    def validate(self, blocks: int, at_once: int) -> dict[str, float]:
        """Figures of the first blocks of validation, `val/loss` among them; always the same questions.

        at_once: rows that fit the memory in training.
        """

    def samples(self) -> Sequence[dict[str, Any]]:
        """What the model makes of fixed prompts, as rows of samples.jsonl, so that it can be compared over time."""

    def write(self, folder: Path) -> None:
        """Write the model into a checkpoint's folder."""


def train(run: Run, settings: S, objective: type[Objective[S]]) -> dict[str, Any]:
    """Train until the last step; what was reached."""
    job = prepare(run, settings, objective)
    job.course.follow(job)
    return job.result()


def prepare(run: Run, settings: S, objective: type[Objective[S]]) -> Job:
    """Read the text, make the model or resume it, try its memory, and restore the random numbers last."""
    device = set_up_torch(run, deterministic=settings.deterministic)
    tokenizer = TextTokenizer.load(run.tokenizer().path)
    config = model_config(settings, tokenizer.vocab_size)
    begun = begin(run, settings, device, Progress, lr=peak_lr(settings, config))
    begun = begun.fitting(config, rows_in_each(settings))
    text = open_text(run, settings, objective.text_tokens(settings, config))
    if begun.checkpoint:
        model = objective.models.load(begun.checkpoint.path, device=begun.place, config=config)
    else:
        model = objective.models.new(config, settings.seed, device=begun.place)
    opened = begun.optimise(model, parameters=parameter_count(config).total)
    with distributed.whole(model):
        asked = objective(model, settings, tokenizer, text)
    if begun.checkpoint and asked.carried:
        asked.carried.restore(read_state(begun.checkpoint))
    job = Job(run, settings, config, opened, tokenizer, text, asked)
    job.course.make_ready(job)
    return job


def open_text(run: Run, settings: Pretrain, length: int) -> Text:
    """The run's text, encoded if it is not yet, in blocks of so many tokens and one. UserError when it has none."""
    dataset = run.dataset()

    def encoding(done: int, total: int) -> None:
        run.progress(done, total, unit="bytes", phase="encoding")

    tokens = token_shards(dataset, run.tokenizer(), encoding)
    train, validation = (Blocks(part, length, settings.seed) for part in (tokens.train, tokens.val))
    for name, blocks in (("training", train), ("validation", validation)):
        if len(blocks) == 0:
            raise UserError(
                f"The {name} part of {dataset.name!r} is shorter than one block of {length + 1} tokens.",
                "Build the dataset with a larger split, add text, or choose a smaller context.",
            )
    return Text(tokens, train, validation, length, settings.batch_size, settings.seed)


def rows_in_each(settings: Pretrain) -> int:
    """Rows that each of several processes holds at once. One alone needs a single row: it tries how many fit."""
    share = len(distributed.share(settings.batch_size))
    return min(settings.sequences_at_once, share) if distributed.several() else 1


@dataclass
class Job:
    """A pre-training run at work."""

    run: Run
    settings: Pretrain
    config: ModelConfig
    opened: Opened[torch.nn.Module, Progress]
    tokenizer: TextTokenizer
    text: Text
    objective: Objective[Any]

    def __post_init__(self) -> None:
        self.model, self.progress = self.opened.model, self.opened.progress
        self.course = Course(
            self.run,
            self.settings,
            self.opened,
            self.config,
            Work(self.objective.flops()),
            sample=self.sample,
            sample_every=self.settings.sample_every,
            state=self.state,
        )
        self.memory = self.course.memory

    def costliest(self, rows: int) -> Tensor:
        """The loss on rows that take the most memory."""
        return self.objective.costliest(rows)

    def step(self) -> Update:
        """Make one update; a micro-batch that does not fit the memory is halved."""
        return self.memory.until_it_fits(self.model, self._step)

    def _step(self) -> Update:
        size, step = self.settings.batch_size, self.progress.step
        with self.course.pace.step(size * self.config.context):
            self.model.train()
            parts = self.memory.parts(self.memory.own(range(size)))
            made = self.course.updates.make(self.objective.loss(step, rows) for rows in parts)
        if self.objective.carried:
            self.objective.carried.keep()
        self.progress.tokens_seen += size * self.config.context
        return made

    def figures(self) -> dict[str, float]:
        """Nothing beside the loss."""
        return {}

    @torch.no_grad()
    def evaluate(self, *, whole: bool) -> dict[str, float]:
        """The objective's figures, over eval_tokens of validation or all of it."""
        self.model.eval()
        blocks = len(self.text.validation)
        if not whole:
            blocks = min(blocks, max(1, self.settings.eval_tokens // self.config.context))
        return self.objective.validate(blocks, min(self.memory.rows, self.settings.batch_size))

    @torch.no_grad()
    def sample(self) -> None:
        """Show what the model makes of the fixed prompts."""
        self.model.eval()
        for row in self.objective.samples():
            self.run.sample(self.progress.step, **row)

    def result(self) -> dict[str, Any]:
        """The closing figures."""
        return self.course.closing(parameters=parameter_count(self.config).total)

    def state(self) -> Mapping[str, Tensor] | None:
        """What the model carries from step to step, for a checkpoint."""
        return self.objective.carried.state() if self.objective.carried else None

    def write(self, folder: Path) -> None:
        """As the objective says, with the tokenizer."""
        self.objective.write(folder)
        copy_tokenizer(self.tokenizer, folder)
