"""Evaluation: what checkpoints make of a dataset, each measured in the same way on the same records.

text       L = −1/N Σ log p(x_t | x_<t), perplexity exp(L), bits a byte L·N / (bytes · ln 2). Each token is predicted
           once; a document longer than the context is read in windows that overlap by half, so that a token sees at
           least half a context of what stands before it.
chat       the same over what the assistant says.
prompts    answers, each token the likeliest; the share that is right, with Wilson's interval, and of the starter
           world's prompts the share in the style that its rule prefers. With a reference: the KL of answers drawn from
           the checkpoint, KL(π ‖ π_ref) in nats an answer.
labelled   multiple choice: the option of highest log-likelihood after the question, as it is (`choice`) and divided by
           its bytes (`choice_per_byte`). Source: Brown et al., Language Models are Few-Shot Learners (2005.14165), 2.4.

A T5 writes its answers whatever the kind: `stages.measuring.evaluate_t5`.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from stages.asking.completion import TextModel, open_text_model
from stages.asking.dialogue import asking_template
from stages.data.conversations import Masker
from stages.data.records import read_records
from stages.data.tokenizer import TextTokenizer
from stages.data.world import score as world_score
from stages.generate import Sampling, generate
from stages.loop import set_up_torch
from stages.measuring.evaluate_t5 import evaluate_t5
from stages.measuring.likelihood import Scored, log_likelihoods, windows
from stages.measuring.matching import is_right, rule_of
from stages.models.bases import base_folder, refuse_short_sighted
from stages.models.hf_config import read_any_config
from stages.policies.distance import kl_from
from stages.run import Run
from stages.store.checkpoints import Checkpoint
from stages.store.datasets import Dataset
from stages.store.errors import UserError
from stages.store.evaluations import FILE, Answer, Evaluation, Row
from stages.store.files import write_atomic
from stages.store.records import ChatRecord, LabelledRecord, Message, PromptRecord, Record, TextRecord
from stages.store.specs.evaluate import Evaluate
from stages.store.specs.parents import checkpoint_roles
from stages.store.statistics import share
from stages.training.tuning import probe_prompts

T = TypeVar("T")

Progress = Callable[[int, int], None]
"""Called with records done and in all. It may raise, to cancel."""


def run(run: Run) -> dict[str, Any]:
    """Measure every checkpoint of the run; what was found, checkpoint by checkpoint, is kept as it comes."""
    settings, dataset = run.settings(Evaluate), run.dataset()
    split, records = chosen(dataset, settings)
    found = Evaluation(
        dataset=dataset.name,
        dataset_digest=dataset.info.digest,
        kind=dataset.info.kind,
        split=split,
        records=len(records),
    )
    device = set_up_torch(run, deterministic=False).type
    roles = checkpoint_roles(run.spec.parents)
    reference = run.checkpoint("reference") if "reference" in run.spec.parents else None
    if reference is not None and dataset.info.kind != "prompts":
        raise UserError("KL is measured on answers to prompts.", "Choose a dataset of prompts, or no reference.")
    for done, role in enumerate(roles):

        def progress(count: int, total: int, done: int = done) -> None:
            run.progress(done * total + count, len(roles) * total, unit="records", phase=f"checkpoint {done + 1}")

        folder = run.checkpoint(role)
        if read_any_config(base_folder(folder)).kind == "encoder-decoder":
            row = evaluate_t5(row_of(folder), folder, dataset, records, settings, device, progress)
        else:
            row = evaluate(folder, records, settings, device, progress, reference)
        found = msgspec.structs.replace(found, rows=[*found.rows, row])
        write_atomic(run.dir.path / FILE, msgspec.json.format(msgspec.json.encode(found), indent=1))
        shares = {f"eval/{name}": part.value for name, part in row.shares.items() if part.value is not None}
        run.log_metrics(row.step, {f"eval/{name}": value for name, value in row.figures.items()} | shares)
        for answer in row.answers:
            run.sample(row.step, prompt=answer.prompt, text=answer.text)
    return {"checkpoints": len(found.rows), "records": len(records), "split": split}


def chosen(dataset: Dataset, settings: Evaluate) -> tuple[str, list[Record]]:
    """The part of the dataset and the records of it that are looked at. UserError when there are none."""
    split = settings.split
    if split == "auto":
        split = "val" if dataset.info.records.get("val") else "all"
    parts = list(dataset.info.records) if split == "all" else [split]
    count = sum(dataset.info.records.get(part, 0) for part in parts)
    if not count:
        raise UserError(f"The {split} part of {dataset.name!r} is empty.", "Choose another split.")
    wanted = range(count)
    if settings.max_records is not None and count > settings.max_records:
        wanted = sorted(random.Random(settings.seed).sample(wanted, settings.max_records))  # type: ignore[assignment]
    keep, every = set(wanted), chain.from_iterable(read_records(dataset, part) for part in parts)
    return split, [record for number, record in enumerate(every) if number in keep]


def evaluate(
    folder: Path,
    records: Sequence[Record],
    settings: Evaluate,
    device: str,
    progress: Progress,
    reference: Path | None = None,
) -> Row:
    """One checkpoint on these records, all of one kind; with a reference, how far its answers are from it."""
    model = open_text_model(folder, device, precision=settings.precision)
    row = row_of(folder)
    with Masker(base_folder(folder), text=asking_template(folder, settings.template)) as masker:
        kind = type(records[0])
        if kind is TextRecord:
            row = _with_loss(row, model, records, settings, progress, _documents(model))
        elif kind is ChatRecord:
            row = _with_loss(row, model, records, settings, progress, _said(masker, model.tokenizer, model.context))
        elif kind is PromptRecord:
            row = _with_answers(row, model, masker, records, settings, progress)
            if reference is not None:
                row = _with_kl(row, model, masker, records, settings, reference)
        elif kind is LabelledRecord:
            row = _with_choices(row, model, records, settings, progress)
        else:
            raise UserError("Preferences are no measure of a language model.", "Choose text, chat, prompts or choices.")
        if settings.probes:
            row = _with_probes(row, model, masker, settings)
    return row


def _with_loss(
    row: Row,
    model: TextModel,
    records: Sequence[Record],
    settings: Evaluate,
    progress: Progress,
    pieces_of: Callable[[Record], tuple[list[Scored], int]],
) -> Row:
    nats = 0.0
    tokens = size = left_out = 0
    for done, some in _chunks(records, 64):
        pieces: list[Scored] = []
        for record in some:
            found, count = pieces_of(record)
            left_out += not found
            pieces += found
            size += count
        for total, count in log_likelihoods(model, pieces, settings.batch_tokens):
            nats, tokens = nats - total, tokens + count
        progress(done, len(records))
    if not tokens:
        raise UserError("There is nothing to predict in these records.")
    loss = nats / tokens
    figures = {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}
    if size:
        figures["bits_per_byte"] = nats / size / math.log(2)
    note = f"{left_out:,} records hold nothing that this model can be asked to predict." if left_out else ""
    return msgspec.structs.replace(row, figures=figures, note=note)


def _documents(model: TextModel) -> Callable[[Record], tuple[list[Scored], int]]:
    """A document after the end-of-text token, in windows, and its bytes."""

    def pieces(record: Record) -> tuple[list[Scored], int]:
        assert isinstance(record, TextRecord)
        ids = [model.tokenizer.eos_id, *model.tokenizer.encode(record.text)]
        return list(windows(ids, model.context)), len(record.text.encode())

    return pieces


def _said(masker: Masker, tokenizer: TextTokenizer, context: int) -> Callable[[Record], tuple[list[Scored], int]]:
    """Each run of tokens that the assistant says after all that stands before it, and their bytes."""

    def pieces(record: Record) -> tuple[list[Scored], int]:
        assert isinstance(record, ChatRecord)
        try:
            found = masker.mask(record.messages)
        except UserError:
            return [], 0
        ids, trained = found.ids[: context + 1], found.trained[: context + 1]
        turns = [(start, stop) for start, stop in _runs(trained) if start > 0]
        size = sum(len(tokenizer.decode(ids[start:stop]).encode()) for start, stop in turns)
        return [Scored(ids[:stop], start) for start, stop in turns], size

    return pieces


def _runs(flags: Sequence[bool]) -> Iterator[tuple[int, int]]:
    start = None
    for place, on in enumerate([*flags, False]):
        if on and start is None:
            start = place
        elif not on and start is not None:
            yield start, place
            start = None


def _with_answers(
    row: Row, model: TextModel, masker: Masker, records: Sequence[Record], settings: Evaluate, progress: Progress
) -> Row:
    prompts = [record for record in records if isinstance(record, PromptRecord)]
    hits: dict[str, list[bool]] = defaultdict(list)
    answers: list[Answer] = []
    cut, room = 0, model.context - _longest(model, settings)
    for done, some in _chunks(prompts, 4 * settings.slots):
        asked = _in_tokens(model, masker, [record.messages for record in some])
        cut += sum(len(ids) > room for ids in asked)
        for record, text in zip(some, answered(model, masker, asked, settings), strict=True):
            right = is_right(record, text, settings.match) if record.answer is not None else None
            if right is not None:
                hits["exact"].append(right)
                if rule_of(record, settings.match) == "world":
                    hits["preferred"].append(world_score({"answer": record.answer, "meta": record.meta}, text) == 2)
                group = record.meta.get("family") or record.meta.get("task")
                if isinstance(group, str):
                    hits[f"exact/{group}"].append(right)
            prompt = record.messages[-1].content if record.messages else ""
            answers.append(Answer(prompt=prompt, text=text, wanted=record.answer, right=right))
        progress(done, len(prompts))
    answers.sort(key=lambda answer: answer.right is True)
    shares = {name: share(sum(each), len(each)) for name, each in hits.items()}
    note = f"{cut:,} prompts exceed {room:,} tokens and are asked by their ends." if cut else ""
    return msgspec.structs.replace(row, shares=shares, answers=answers[: settings.examples], note=note)


def answered(model: TextModel, masker: Masker, asked: Sequence[Sequence[int]], settings: Evaluate) -> list[str]:
    """The likeliest answer to each prompt, as text. A prompt that is too long keeps its end."""
    stops = _stops(model, masker)
    sampling = Sampling(temperature=0.0, max_new_tokens=_longest(model, settings), stop_ids=stops)
    room = model.context - sampling.max_new_tokens
    found = generate(model.decoder, [ids[-room:] for ids in asked], sampling, max_slots=settings.slots)
    return [model.tokenizer.decode([token for token in each if token not in stops]).strip() for each in found]


def _with_kl(
    row: Row, model: TextModel, masker: Masker, records: Sequence[Record], settings: Evaluate, reference: Path
) -> Row:
    other = open_text_model(reference, model.decoder.tokens.device.type, precision=settings.precision)
    if other.tokenizer.vocab_size != model.tokenizer.vocab_size:
        raise UserError(f"The reference {reference} has another tokenizer than {row.checkpoint}.")
    asked = _in_tokens(model, masker, [one.messages for one in records if isinstance(one, PromptRecord)])
    prompts = [ids[_longest(model, settings) - model.context :] for ids in asked]
    sampling = Sampling(max_new_tokens=_longest(model, settings), stop_ids=_stops(model, masker), seed=settings.seed)
    longest = max((len(each) for each in prompts), default=0) + sampling.max_new_tokens
    refuse_short_sighted(reference, longest, "reference")
    kl = kl_from(other.decoder, model.decoder, prompts, sampling, settings.slots)
    return msgspec.structs.replace(row, figures={**row.figures, "kl": kl})


def _in_tokens(model: TextModel, masker: Masker, asked: Sequence[Sequence[Message]]) -> list[list[int]]:
    return [masker.prompt(messages) or [model.tokenizer.eos_id] for messages in asked]


def _longest(model: TextModel, settings: Evaluate) -> int:
    """Tokens of an answer: half the context at most, so that prompts have room."""
    return min(settings.max_new_tokens, max(1, model.context // 2))


def _stops(model: TextModel, masker: Masker) -> tuple[int, ...]:
    """Tokens that end an answer."""
    end = _end_of_turn(masker)
    return tuple({*model.end_ids, *([end] if end is not None else [])})


def _with_probes(row: Row, model: TextModel, masker: Masker, settings: Evaluate) -> Row:
    prompts = probe_prompts()
    asked = _in_tokens(model, masker, [[Message("user", prompt)] for prompt in prompts])
    texts = answered(model, masker, asked, settings)
    answers = [Answer(prompt=prompt, text=text) for prompt, text in zip(prompts, texts, strict=True)]
    return msgspec.structs.replace(row, answers=[*row.answers, *answers])


def _end_of_turn(masker: Masker) -> int | None:
    try:
        return masker.end_of_turn()
    except UserError:
        return None


def _with_choices(row: Row, model: TextModel, records: Sequence[Record], settings: Evaluate, progress: Progress) -> Row:
    hits: dict[str, list[bool]] = defaultdict(list)
    asked = [one for one in records if isinstance(one, LabelledRecord) and one.task == "choice"]
    if not asked:
        raise UserError("There is no multiple choice among these records.", "Choose another dataset.")
    for done, some in _chunks(asked, 32):
        pieces, sizes = [], []
        for record in some:
            question = [model.tokenizer.eos_id, *model.tokenizer.encode(record.texts[0])]
            for option in record.texts[1:]:
                ids = model.tokenizer.encode(" " + option)
                kept = question[-max(1, model.context - len(ids)) :]
                pieces.append(Scored([*kept, *ids], len(kept)))
                sizes.append(len(option.encode()))
        scores = iter(zip(log_likelihoods(model, pieces, settings.batch_tokens), sizes, strict=True))
        for record in some:
            options = [next(scores) for _ in record.texts[1:]]
            right = int(record.label or 0)
            hits["choice"].append(_best(total for (total, _), _ in options) == right)
            hits["choice_per_byte"].append(_best(total / max(1, size) for (total, _), size in options) == right)
        progress(done, len(asked))
    others = len(records) - len(asked)
    note = f"{others:,} records of other tasks are left out." if others else ""
    shares = {name: share(sum(each), len(each)) for name, each in hits.items()}
    return msgspec.structs.replace(row, shares=shares, note=note)


def _best(values: Iterable[float]) -> int:
    every = list(values)
    return every.index(max(every))


def _chunks(values: Sequence[T], size: int) -> Iterator[tuple[int, Sequence[T]]]:
    for start in range(0, len(values), size):
        some = values[start : start + size]
        yield start + len(some), some


def row_of(folder: Path) -> Row:
    """What a checkpoint is called, with nothing measured yet."""
    checkpoint = Checkpoint(folder, 0)
    return Row(checkpoint=checkpoint.title(), step=checkpoint.trained())
