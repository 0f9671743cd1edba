"""In-context evaluation: a task is shown by k solved examples in the prompt, and nothing is trained.

    likelihood   arg max over options o of log p(o | prompt), as it is, divided by the bytes of o, or less
                 log p(o | last line of the prompt): how much the prompt makes the option likelier
    generation   the likeliest text, token by token, up to a stop; right by the rule `match`

The share that is right is given with Wilson's interval for every k. Source: Brown et al., Language Models are Few-Shot
Learners (2005.14165), sections 2 and 2.4; chain-of-thought prompts: Wei et al. (2201.11903).
A run keeps each share as it comes, and goes on with those that are missing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import msgspec

from stages.asking.completion import TextModel, open_text_model
from stages.data.records import read_records
from stages.data.tasks import Item, Writer, examples_for, fitting_task, item_of, labels_of, read_task
from stages.evaluate import chosen, row_of
from stages.generate import Sampling, generate
from stages.loop import set_up_torch
from stages.measuring.likelihood import Scored, log_likelihoods
from stages.measuring.matching import is_right
from stages.run import Run
from stages.store.datasets import Dataset
from stages.store.errors import UserError
from stages.store.evaluations import FILE, Answer, Evaluation, Row, read_evaluation
from stages.store.files import write_atomic
from stages.store.records import PromptRecord
from stages.store.specs.evaluate import Evaluate
from stages.store.specs.in_context import InContext
from stages.store.specs.parents import checkpoint_roles
from stages.store.statistics import share

TOGETHER = 64
"""Questions that are written and scored at once."""

Progress = Callable[[int, int], None]
"""Called with questions done and in all. It may raise, to cancel."""


class Prompt(NamedTuple):
    """A question in tokens, as a model is asked it."""

    item: Item
    text: str
    ids: list[int]
    dropped: int
    """Examples that did not fit the context."""


class Result(NamedTuple):
    """What a model made of one question."""

    prompt: Prompt
    said: str
    right: bool


def run(run: Run) -> dict[str, Any]:
    """Measure what is not measured yet: every checkpoint with every number of examples."""
    settings, dataset = run.settings(InContext), run.dataset()
    split, asked, pool = material(dataset, settings)
    roles = checkpoint_roles(run.spec.parents)
    found = _begun(run, dataset, split, len(asked))
    device = set_up_torch(run, deterministic=False).type
    shots = sorted(set(settings.shots))
    total = len(roles) * len(shots) * len(asked)
    for number, role in enumerate(roles):
        row = found.rows[number] if number < len(found.rows) else None
        missing = [k for k in shots if row is None or _name(k) not in row.shares]
        if not missing:
            continue
        folder = run.checkpoint(role)
        model = open_text_model(folder, device, precision=settings.precision)
        for k in missing:
            before = (number * len(shots) + shots.index(k)) * len(asked)

            def progress(count: int, _: int, before: int = before, k: int = k) -> None:
                run.progress(before + count, total, unit="questions", phase=f"{_name(k)}")

            results = solve(model, asked, pool, k, settings, progress)
            row = with_results(row or row_of(folder), results, k, settings)
            rows = [*found.rows[:number], row, *found.rows[number + 1 :]]
            found = msgspec.structs.replace(found, rows=rows)
            write_atomic(run.dir.path / FILE, msgspec.json.format(msgspec.json.encode(found), indent=1))
    return {"checkpoints": len(found.rows), "records": len(asked), "split": split}


def material(dataset: Dataset, settings: InContext) -> tuple[str, list[Item], list[Item]]:
    """The part that is asked, its questions, and what examples are drawn from. UserError where there is nothing."""
    asking = Evaluate(split=settings.split, max_records=settings.max_records, seed=settings.seed)
    split, records = chosen(dataset, asking)
    source = settings.examples_from
    if source == "auto":
        source = "train" if dataset.info.records.get("train") and split != "train" else "all"
    behind = list(chain.from_iterable(read_records(dataset, part) for part in _parts(dataset, source)))
    labels = labels_of(chain(behind, records))
    asked, pool = ([item for one in some if (item := item_of(one, labels))] for some in (records, behind))
    if not asked:
        raise UserError(
            f"{dataset.name!r} has no questions with answers.", "Choose prompts with answers, or labelled records."
        )
    return split, asked, pool


def _parts(dataset: Dataset, split: str) -> list[str]:
    return list(dataset.info.records) if split == "all" else [split]


def solve(
    model: TextModel, asked: Sequence[Item], pool: Sequence[Item], k: int, settings: InContext, progress: Progress
) -> list[Result]:
    """Every question with k examples before it."""
    draw = partial(examples_for, pool=pool, count=k, alike=settings.alike, seed=settings.seed)
    judge = _by_likelihood if compares(asked, settings) else _by_writing
    writer = Writer(read_task(fitting_task(asked[0]) if settings.task == "auto" else settings.task))
    results: list[Result] = []
    try:
        for start in range(0, len(asked), TOGETHER):
            some = asked[start : start + TOGETHER]
            shown = [draw(item, number=start + place) for place, item in enumerate(some)]
            results += judge(model, prompts_of(model, writer, some, shown, settings), settings)
            progress(len(results), len(asked))
    finally:
        writer.close()
    return results


def compares(asked: Sequence[Item], settings: InContext) -> bool:
    """Whether options are compared, rather than answers written. UserError where there is nothing to compare."""
    choosable = all(item.options for item in asked)
    if settings.scoring == "likelihood" and not choosable:
        raise UserError("These records have no options to compare.", "Set scoring to generation.")
    return choosable and settings.scoring != "generation"


def prompts_of(
    model: TextModel, writer: Writer, some: Sequence[Item], shown: Sequence[Sequence[Item]], settings: InContext
) -> list[Prompt]:
    """The questions in tokens after their examples; the first examples go where all exceed the context."""
    start = model.tokenizer.start_ids or [model.tokenizer.eos_id]
    found: dict[int, Prompt] = {}
    dropped = 0
    while len(found) < len(some):
        rest = [place for place in range(len(some)) if place not in found]
        texts = writer.write([(shown[place][dropped:], some[place]) for place in rest])
        for place, text, ids in zip(rest, texts, model.tokenizer.encode_batch(texts), strict=True):
            room = max(1, model.context - len(start) - _answer_length(model, some[place], settings))
            if len(ids) <= room or dropped >= len(shown[place]):
                found[place] = Prompt(some[place], text, [*start, *ids[-room:]], dropped)
        dropped += 1
    return [found[place] for place in range(len(some))]


def _answer_length(model: TextModel, item: Item, settings: InContext) -> int:
    """Tokens to keep free behind the prompt."""
    if settings.scoring != "generation" and item.options:
        return max(len(model.tokenizer.encode(f" {option}")) for option in item.options)
    return min(settings.max_new_tokens, model.context // 2)


def _by_likelihood(model: TextModel, prompts: Sequence[Prompt], settings: InContext) -> list[Result]:
    pieces: list[Scored] = []
    for prompt in prompts:
        pieces += option_pieces(model, prompt)
    scores = iter([total for total, _ in log_likelihoods(model, pieces, settings.batch_tokens)])
    priors = iter(_priors(model, prompts, settings))
    results = []
    for prompt in prompts:
        options = prompt.item.options
        values = [next(scores) for _ in options]
        if settings.normalise == "bytes":
            values = [value / max(1, len(option.encode())) for value, option in zip(values, options, strict=True)]
        elif settings.normalise == "prior":
            values = [value - next(priors) for value in values]
        best = max(range(len(options)), key=lambda place: values[place])
        results.append(Result(prompt, options[best], best == prompt.item.right))
    return results


def option_pieces(model: TextModel, prompt: Prompt, ids: Sequence[int] | None = None) -> list[Scored]:
    """Each option behind the prompt's tokens (or behind `ids`), as what is to be predicted."""
    before = list(prompt.ids if ids is None else ids)
    lead = "" if prompt.text[-1:].isspace() else " "
    encoded = model.tokenizer.encode_batch([lead + option for option in prompt.item.options])
    return [Scored([*before, *(option or [model.tokenizer.eos_id])], len(before)) for option in encoded]


def _priors(model: TextModel, prompts: Sequence[Prompt], settings: InContext) -> list[float]:
    """log p of each option after the prompt's last line alone, such as "Answer:"."""
    if settings.normalise != "prior":
        return []
    start = model.tokenizer.start_ids or [model.tokenizer.eos_id]
    pieces: list[Scored] = []
    for prompt in prompts:
        last = model.tokenizer.encode(prompt.text.rpartition("\n")[2])
        pieces += option_pieces(model, prompt, [*start, *last])
    return [total for total, _ in log_likelihoods(model, pieces, settings.batch_tokens)]


def _by_writing(model: TextModel, prompts: Sequence[Prompt], settings: InContext) -> list[Result]:
    longest = min(settings.max_new_tokens, max(1, model.context // 2))
    sampling = Sampling(temperature=0.0, max_new_tokens=longest, stop_ids=model.end_ids)
    written = generate(model.decoder, [prompt.ids for prompt in prompts], sampling, max_slots=settings.slots)
    results = []
    for prompt, ids in zip(prompts, written, strict=True):
        text = model.tokenizer.decode([token for token in ids if token not in model.end_ids])
        said = answer_in(text, settings)
        results.append(Result(prompt, said, _right(prompt.item, said, settings.match)))
    return results


def answer_in(text: str, settings: InContext) -> str:
    """The answer in what was written: up to the first stop, behind the last of the words that lead to it."""
    for stop in filter(None, settings.stop):
        text = text.partition(stop)[0]
    if settings.answer_after:
        text = text.rpartition(settings.answer_after)[2]
    return text.strip()


def _right(item: Item, said: str, match: str) -> bool:
    """By the rule `match` of evaluation; a record with options is right by its option's text."""
    asked = item.record if isinstance(item.record, PromptRecord) else PromptRecord(messages=[], source="", meta={})
    return is_right(msgspec.structs.replace(asked, answer=item.answer), said, match)


def with_results(row: Row, results: Sequence[Result], k: int, settings: InContext) -> Row:
    """The row with the share that was right with k examples, by group where there are several, and answers to read."""
    groups: dict[str, list[bool]] = defaultdict(list)
    for result in results:
        groups[result.prompt.item.group].append(result.right)
    shares = {_name(k): share(sum(result.right for result in results), len(results))}
    if len(groups) > 1:
        shares |= {f"{_name(k)}/{group or 'other'}": share(sum(hits), len(hits)) for group, hits in groups.items()}
    fewer = sum(result.prompt.dropped > 0 for result in results)
    note = f"{_name(k)}: {fewer:,} questions had room for fewer examples." if fewer else ""
    answers = [
        Answer(prompt=one.prompt.text, text=one.said, wanted=one.prompt.item.answer, right=one.right) for one in results
    ]
    answers.sort(key=lambda answer: answer.right is True)
    return msgspec.structs.replace(
        row,
        shares={**row.shares, **shares},
        answers=answers[: settings.examples],
        note=" ".join(filter(None, (row.note, note))),
    )


def _name(k: int) -> str:
    return f"{k}-shot"


def _begun(run: Run, dataset: Dataset, split: str, count: int) -> Evaluation:
    """What an earlier worker of this run has found, or nothing yet."""
    if (run.dir.path / FILE).is_file():
        return read_evaluation(run.dir)
    info = dataset.info
    return Evaluation(dataset=dataset.name, dataset_digest=info.digest, kind=info.kind, split=split, records=count)
