"""What a T5 makes of a dataset: its answers, each token the likeliest, and the share that is right.

Records are written as `stages.data.pairs` writes them, with the prefix that the checkpoint was tuned with for this
dataset, its only one, or that of the dataset's name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import torch

from stages.asking.text_to_text import TOGETHER, write
from stages.data.pairs import pairs_of
from stages.data.tokenizer import TextTokenizer
from stages.generate import Sampling
from stages.measuring.matching import is_right
from stages.models.t5 import load_t5, prefixes_in
from stages.store.datasets import Dataset
from stages.store.errors import UserError
from stages.store.evaluations import Answer, Row
from stages.store.records import PromptRecord, Record, TextRecord
from stages.store.specs.evaluate import Evaluate
from stages.store.statistics import share
from stages.training.precision import choose_precision


def evaluate_t5(
    row: Row,
    folder: Path,
    dataset: Dataset,
    records: Sequence[Record],
    settings: Evaluate,
    device: str,
    progress: Callable[[int, int], None],
) -> Row:
    """The row with the share `exact` of answers that are right by the rule of the settings, and some to be read."""
    if isinstance(records[0], TextRecord):
        raise UserError(
            "A T5 is measured by its answers, and texts have none.", "Choose labelled data, chat or prompts."
        )
    prefix = _prefix(folder, dataset)
    asked = [(record, pair) for record in records for pair in pairs_of(record, prefix)]
    if not asked:
        raise UserError("No record here has an answer to compare with.", "Choose another dataset.")
    tokenizer = TextTokenizer.load(folder)
    precision = "fp32" if settings.precision == "auto" and device == "cpu" else settings.precision
    model = load_t5(folder, choose_precision(precision, torch.device(device)).dtype, device)
    sampling = Sampling(temperature=0.0, max_new_tokens=settings.max_new_tokens)
    answers, hits = [], 0
    for start in range(0, len(asked), TOGETHER):
        some = asked[start : start + TOGETHER]
        ids = [[*tokenizer.encode(pair.read)[: model.config.context - 1], tokenizer.eos_id] for _, pair in some]
        written = write(model, ids, sampling, start=tokenizer.pad_id, ends=[tokenizer.eos_id])
        for (record, pair), found in zip(some, written, strict=True):
            text = tokenizer.decode(found)
            right = is_right(PromptRecord(messages=[], answer=pair.written, meta=record.meta), text, settings.match)
            hits += right
            answers.append(Answer(prompt=pair.read, text=text, wanted=pair.written, right=right))
        progress(start + len(some), len(asked))
    answers.sort(key=lambda answer: answer.right is True)
    return msgspec.structs.replace(row, shares={"exact": share(hits, len(asked))}, answers=answers[: settings.examples])


def _prefix(folder: Path, dataset: Dataset) -> str:
    known = prefixes_in(folder)
    if dataset.name in known:
        return known[dataset.name]
    if len(known) == 1:
        return next(iter(known.values()))
    return f"{dataset.name}: " if dataset.info.kind == "labelled" else ""
