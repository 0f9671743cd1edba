"""Discriminative fine-tuning: a pre-trained model learns to label texts, in GPT-1's way or in BERT's.

    L(θ) = − 1/R Σ_r log p_θ(y_r | x) − λ 1/T Σ_t log p_θ(x_{t+1} | x_{≤t})

over the R targets y of a step's records x, and the T tokens that follow another in their sequences: a label for each
text, or pair of texts (entailment, likeness), an option for each question, a label for each word. Each record is a
sequence, or several, of the shape of its task (`stages.data.labelled`); the head is `stages.models.heads`. λ is the
weight of the auxiliary language model, which an encoder does not have. Sources: Radford et al., Improving Language
Understanding by Generative Pre-Training (2018), eqs. 3 to 5 and section 3.3; Devlin et al., BERT (arXiv 1810.04805),
section 4. Shapes: R targets, N tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from stages.data.labelled import UNKNOWN, Batch, Examples, Ints, Writer, read_examples, survey
from stages.data.tokenizer import TextTokenizer, copy_tokenizer
from stages.loop import Progress, by_leader, set_up_torch
from stages.measuring.assessment import Tensors, ask, figures, write_classified
from stages.models.bases import base_folder
from stages.models.decoder import Decoder, new_decoder
from stages.models.encoder import Encoder, load_encoder, new_encoder
from stages.models.heads import Classifier, load_classifier, new_classifier, save_classifier, take_pooler
from stages.models.hf_config import read_any_config, refuse_reward_model
from stages.run import Run
from stages.store import compute
from stages.store.architecture import ModelConfig
from stages.store.checkpoints import Checkpoint
from stages.store.classifiers import Head
from stages.store.errors import UserError
from stages.store.specs.classify import Classify
from stages.training import distributed
from stages.training.adapting import open_whole
from stages.training.course import Course
from stages.training.opening import Opened, begin, length_seen, peak_lr
from stages.training.tuning import room_for
from stages.training.updates import Update

LR_TIMES_WIDTH = 0.064
"""Peak rate times width: half of what instruction tuning uses."""


def run(run: Run) -> dict[str, Any]:
    """Train until the last step, and judge the validation part, or where there is none all; what was reached."""
    job = prepare(run)
    job.course.follow(job)
    by_leader(job.model, job.assess)
    run.report(job.progress.step, job.course.steps)
    return job.result()


class Data(NamedTuple):
    """The run's dataset in tokens."""

    head: Head
    train: Examples
    val: Examples


def prepare(run: Run) -> Job:
    """Read the records, load the model or resume it, try its memory, and restore the random numbers last."""
    settings = run.settings(Classify)
    device = set_up_torch(run, deterministic=settings.deterministic)
    base = run.checkpoint()
    config = config_of(base, settings.dropout)
    data = read_data(run, base, settings, config)
    lr = peak_lr(settings, config.width, times_width=LR_TIMES_WIDTH)
    begun = begin(run, settings, device, Progress, lr=lr).fitting(config)
    model = open_model(base, begun.checkpoint, settings, data.head, config, begun.place)
    opened = begun.optimise(model, parameters=sum(parameter.numel() for parameter in model.parameters()))
    job = Job(run, settings, opened, base, data)
    job.course.make_ready(job)
    return job


def config_of(base: Path, dropout: float) -> ModelConfig:
    """The shape of a checkpoint's model with the dropout it is to train with. UserError for one of no use here."""
    folder = base_folder(base)
    refuse_reward_model(folder)
    config = read_any_config(folder)
    if config.kind == "encoder-decoder":
        raise UserError(
            f"{base} holds an encoder-decoder, which labels texts by writing the label.",
            "Choose a decoder or an encoder here.",
        )
    return msgspec.structs.replace(config, dropout=dropout)


def read_data(run: Run, base: Path, settings: Classify, config: ModelConfig) -> Data:
    """The run's dataset in tokens. What was cut or left out is told; UserError when nothing is left to learn from."""
    dataset = run.dataset()
    found = survey(dataset)
    task = found.task(settings.task, dataset.name)
    head = found.head(task, dataset.name, both_orders=settings.both_orders)
    encoder = config.kind == "encoder"
    writer = Writer(TextTokenizer.load(base), head, room_for(settings.context, config.context), encoder=encoder)
    total, done = sum(dataset.info.records.values()), 0

    def tokenizing(count: int) -> None:
        nonlocal done
        done += count
        run.progress(done, total, unit="records", phase="tokenizing")

    train, val = (read_examples(dataset, [split], writer, progress=tokenizing) for split in ("train", "val"))
    if not len(train):
        raise UserError(f"No record of {dataset.name!r} can be learnt from: none has text and label.")
    if cut := train.cut + val.cut:
        run.warn(f"{cut:,} of {len(train) + len(val):,} records exceed {writer.room:,} tokens and are cut.")
    if unfit := train.unfit + val.unfit:
        run.warn(f"{unfit:,} records are left out: they lack a text, a label, an option or a word.")
    if unlearnt := sorted(found.unlearnt.get(task, ())):
        named = ", ".join(map(repr, unlearnt[:3]))
        run.warn(f"{len(unlearnt):,} labels are in the validation part alone and cannot be learnt: {named}.")
    if not len(val):
        run.warn(f"{dataset.name!r} has no validation part, so nothing tells how well new texts are labelled.")
    return Data(head, train, val)


def open_model(
    base: Path,
    checkpoint: Checkpoint | None,
    settings: Classify,
    head: Head,
    config: ModelConfig,
    device: torch.device,
) -> Classifier:
    """The base, or random weights of its shape, with a fresh head; or the checkpoint that training goes on from."""
    if checkpoint:
        model = load_classifier(checkpoint.path, torch.float32, device, config)
    else:
        body = new_body(config, settings.seed, device) if settings.scratch else open_body(base, config, device)
        model = new_classifier(body, head, settings.seed, language=settings.lm_weight > 0)
        if config.kind == "encoder" and not settings.scratch:
            take_pooler(model, base)
    if isinstance(model.body, Decoder):
        model.body.checkpointing = settings.activation_checkpointing
    return model


def open_body(base: Path, config: ModelConfig, device: torch.device) -> Decoder | Encoder:
    """The pre-trained model of a checkpoint in fp32."""
    if config.kind == "encoder":
        return load_encoder(base, torch.float32, device, config)
    return open_whole(base, device, config)


def new_body(config: ModelConfig, seed: int, device: torch.device) -> Decoder | Encoder:
    """The same architecture as if it had never been trained."""
    return (new_encoder if config.kind == "encoder" else new_decoder)(config, seed, device=device)


@dataclass
class Job:
    """A run at work."""

    run: Run
    settings: Classify
    opened: Opened[Classifier, Progress]
    base: Path
    data: Data

    def __post_init__(self) -> None:
        self.model, self.progress = self.opened.model, self.opened.progress
        self.device = self.model.body.tokens.device
        self.language = self.settings.lm_weight if self.model.decodes else 0.0
        config, seen = self.model.config, length_seen(np.diff(self.data.train.starts))
        work = compute.Work(compute.training(config, seen, 1.0 if self.language else 0.0))
        self.course = Course(self.run, self.settings, self.opened, config, work, len(self.data.train))
        self.memory = self.course.memory
        self._right, self._targets, self._loss, self._nats = 0, 0, 0.0, 0.0

    def costliest(self, rows: int) -> Tensor:
        """The loss on those records that take the most memory."""
        numbers = self.data.train.costliest(rows)
        return self.loss(self.data.train.batch(numbers), self.data.train.seen(numbers), self._follow(numbers))

    def step(self) -> Update:
        """Make one update; a micro-batch that does not fit the memory is halved."""
        return self.memory.until_it_fits(self.model, self._step)

    def _step(self) -> Update:
        settings, train = self.settings, self.data.train
        records = train.order(self.progress.step * settings.batch_size, settings.batch_size, settings.seed)
        targets, follow, tokens = train.seen(records), self._follow(records), int(train.sizes[records].sum())
        self._right, self._targets, self._nats = 0, targets, 0.0
        with self.course.pace.step(tokens):
            self.model.train()
            parts = self.memory.parts(self.memory.own(records))
            made = self.course.updates.make(self.loss(train.batch(part), targets, follow) for part in parts)
        right, self._nats = distributed.total(self._right, self._nats)
        self._right, self._loss = int(right), made.loss
        self.progress.tokens_seen += tokens
        return made

    def loss(self, batch: Batch, targets: int, follow: int) -> Tensor:
        """A batch's part of the loss in nats: its sums over the targets and following tokens of the whole step."""
        tensors = Tensors.of(batch, self.device)
        h_NC = self.model.hidden_states(tensors.tokens, tensors.documents, tensors.types)
        logits = self.model.answers(h_NC, tensors.documents, tensors.groups, tensors.places)
        nats = functional.cross_entropy(logits, tensors.targets, ignore_index=UNKNOWN, reduction="sum")
        self._right += int((logits.detach().argmax(-1) == tensors.targets).sum())
        loss = nats / max(1, targets)
        if self.language:
            own = batch.tokens.size - (len(batch.documents) - 1)
            said = self.model.language_loss(h_NC, tensors.tokens, tensors.documents) * (own / max(1, follow))
            self._nats += said.item()
            loss = loss + self.language * said
        return loss

    def figures(self) -> dict[str, float]:
        """Accuracy in the last step; its loss of labels alone where language counts too, and that of language."""
        own = {"train/accuracy": self._right / max(1, self._targets)}
        if self.language:  # the loss of the labels alone is what validation's can be compared with
            own |= {"train/loss": self._loss - self.language * self._nats, "train/lm_loss": self._nats}
        return own

    def evaluate(self, *, whole: bool) -> dict[str, float]:
        """Loss, accuracy, macro-F1 and of words entity F1, over eval_records records of validation or all."""
        count = len(self.data.val) if whole else min(len(self.data.val), self.settings.eval_records)
        if not count:
            return {}
        return figures(ask(self.model, self.data.val, np.arange(count)), self.model.head)

    def assess(self) -> None:
        """Judge the model as it is now, on validation or where there is none on what it learnt from."""
        split, examples = ("val", self.data.val) if len(self.data.val) else ("train", self.data.train)
        step = self.progress.step
        write_classified(
            self.run,
            self.model,
            self.run.dataset(),
            [split],
            examples,
            name=f"{self.run.spec.name}@{step}",
            step=step,
            worst=self.settings.examples,
        )

    def result(self) -> dict[str, Any]:
        """The closing figures."""
        return self.course.closing(
            task=self.model.head.task,
            labels=len(self.model.head.labels),
            records=len(self.data.train),
        )

    def _follow(self, records: Ints) -> int:
        """Tokens of these records that follow another in their sequences."""
        train = self.data.train
        sequences = int((train.groups[records + 1] - train.groups[records]).sum())
        return int(train.sizes[records].sum()) - sequences

    def write(self, folder: Path) -> None:
        """The model with its head and its tokenizer."""
        tokenizer = TextTokenizer.load(self.base)
        pad = None if tokenizer.pad_id == tokenizer.eos_id else tokenizer.pad_id
        save_classifier(self.model, folder, pad_id=pad, eos_id=tokenizer.eos_id)
        copy_tokenizer(tokenizer, folder)
