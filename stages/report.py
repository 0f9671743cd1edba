"""The report card of a reward model: what it makes of completions that people have ranked and it has not learnt."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stages.data.preference_shards import Preferences, preference_shards
from stages.data.records import read_records
from stages.data.tokenizer import TextTokenizer
from stages.loop import set_up_torch
from stages.measuring.judgement import ScoredCompletions, accuracy, calibration, calibration_error, judge
from stages.measuring.scorer import Scorer
from stages.models.value import ValueModel
from stages.run import Run
from stages.store.checkpoints import Checkpoint
from stages.store.datasets import Dataset
from stages.store.errors import UserError
from stages.store.files import write_atomic
from stages.store.records import PreferenceRecord
from stages.store.rewards import CARD, Disagreement, ReportCard, Scale
from stages.store.specs.report import Report
from stages.store.statistics import Share, share

EXAMPLES = 50
POINTS = 400
"""Completions on the plot of score against length."""


def run(run: Run) -> dict[str, Any]:
    """Judge a dataset by the run's checkpoint."""
    settings, dataset = run.settings(Report), run.dataset()
    device = set_up_torch(run, deterministic=False)
    folder = run.checkpoint()

    def tokenizing(done: int, total: int) -> None:
        run.progress(done, total, unit="prompts", phase="tokenizing")

    with Scorer(folder, device, precision=settings.precision) as scorer:
        context = scorer.model.config.context
        data = preference_shards(dataset, folder, template=scorer.template, context=context, progress=tokenizing)
        split = settings.split if settings.split != "auto" else "val" if len(data.val) else "train"
        checkpoint = Checkpoint(folder, 0)
        name = checkpoint.title()
        card = write_card(
            run,
            scorer.model,
            dataset,
            split,
            data.val if split == "val" else data.train,
            scorer.tokenizer,
            name,
            checkpoint.trained(),
            scale=scorer.scale,
            examples=settings.examples,
            at_most=settings.max_prompts,
        )
    return {"checkpoint": name, "accuracy": card.accuracy.value, "ece": card.ece, "pairs": card.accuracy.of}


def write_card(
    run: Run,
    model: ValueModel,
    dataset: Dataset,
    split: str,
    data: Preferences,
    tokenizer: TextTokenizer,
    name: str,
    step: int,
    *,
    scale: Scale,
    examples: int = EXAMPLES,
    at_most: int | None = None,
) -> ReportCard:
    """Judge a split and write report.json into the run's directory. UserError when it has no prompt.

    name: of the checkpoint, as people write it. scale: what makes its scores normal.
    """

    def scoring(done: int, total: int) -> None:
        run.progress(done, total, unit="completions", phase="scoring")

    prompts = range(min(len(data), at_most or len(data)))
    if not prompts:
        raise UserError(f"The {split} part of {dataset.name!r} holds no prompt that can be judged.")
    judged = judge(model, data, prompts, scoring)
    sets, worst = _of_records(dataset, split, data, judged, tokenizer, scale, examples)
    bins = calibration(judged.margins)
    lengths = np.array([int(data.completion(int(number))[1].sum()) for number in judged.numbers])
    model_longer, people_longer = _longer(judged, lengths)
    shown = np.linspace(0, len(lengths) - 1, min(POINTS, len(lengths))).astype(int)
    normal = (judged.scores - scale.mean) / scale.std
    card = ReportCard(
        checkpoint=name,
        step=step,
        dataset=dataset.name,
        dataset_digest=dataset.info.digest,
        split=split,
        prompts=len(prompts),
        completions=len(judged.scores),
        accuracy=accuracy(judged),
        ece=calibration_error(bins),
        bins=bins,
        scale=Scale(mean=float(judged.scores.mean()), std=float(judged.scores.std()), samples=len(judged.scores)),
        deciles=np.quantile(normal, np.linspace(0, 1, 11)).tolist(),
        length_correlation=_correlation(lengths, judged.scores),
        length_within=_correlation(_within(lengths, data, prompts), _within(judged.scores, data, prompts)),
        longer_scores_higher=model_longer,
        longer_preferred=people_longer,
        points=[(int(lengths[place]), float(normal[place])) for place in shown],
        worst=worst,
        label_sets=sets,
    )
    write_atomic(run.dir.path / CARD, msgspec.json.format(msgspec.json.encode(card), indent=1))
    return card


def _of_records(
    dataset: Dataset,
    split: str,
    data: Preferences,
    judged: ScoredCompletions,
    tokenizer: TextTokenizer,
    scale: Scale,
    examples: int,
) -> tuple[list[str], list[Disagreement]]:
    """The label sets that the records name, and the pairs that the model most surely orders the other way."""
    margins, pairs = judged.margins, judged.pairs
    against = np.argsort(margins, kind="stable")[:examples]
    against = against[margins[against] < 0]
    prompt_of = np.repeat(judged.prompts, [len(data.members(int(prompt))) for prompt in judged.prompts])
    wanted = {int(data.records[prompt_of[pairs.better[pair]]]) for pair in against}
    kept: dict[int, PreferenceRecord] = {}
    sets: dict[str, None] = {}
    for number, record in enumerate(read_records(dataset, split)):
        if isinstance(record, PreferenceRecord):
            if isinstance(named := record.meta.get("set"), str):
                sets[named] = None
            if number in wanted:
                kept[number] = record
    found = []
    for pair in against:
        better, worse = int(pairs.better[pair]), int(pairs.worse[pair])
        record = kept[int(data.records[prompt_of[better]])]
        found.append(
            Disagreement(
                messages=record.messages,
                better=_text(data, tokenizer, int(judged.numbers[better])),
                worse=_text(data, tokenizer, int(judged.numbers[worse])),
                better_score=scale.normal(float(judged.scores[better])),
                worse_score=scale.normal(float(judged.scores[worse])),
                probability=float(1 / (1 + np.exp(-margins[pair]))),
                annotator=record.annotator,
            )
        )
    return list(sets), found


def _text(data: Preferences, tokenizer: TextTokenizer, number: int) -> str:
    ids, own = data.completion(number)
    return tokenizer.decode([token for token in ids[own].tolist() if token not in tokenizer.special_ids]).strip()


def _longer(judged: ScoredCompletions, lengths: NDArray[np.int64]) -> tuple[Share, Share]:
    """Of the pairs of unequal length, in how many the model and the annotator prefer the longer."""
    apart = lengths[judged.pairs.better] - lengths[judged.pairs.worse]
    unequal, margins = apart != 0, judged.margins
    model = np.where(margins == 0, 0.5, (margins > 0) == (apart > 0))[unequal]
    return share(float(model.sum()), len(model)), share(float((apart[unequal] > 0).sum()), len(model))


def _within(values: NDArray[Any], data: Preferences, prompts: range) -> NDArray[np.float64]:
    """Values less their mean over the completions of the same prompt."""
    sizes = np.array([len(data.members(prompt)) for prompt in prompts])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return values - np.repeat(np.add.reduceat(values.astype(np.float64), starts) / sizes, sizes)


def _correlation(a: NDArray[Any], b: NDArray[Any]) -> float | None:
    """Pearson's coefficient; None where one of them never differs."""
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else None
