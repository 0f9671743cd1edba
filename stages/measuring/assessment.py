"""How well a model labels: what it says of labelled records, accuracy, F1, entities, confusion, the worst examples.

    F1 = 2 P R / (P + R)        P = right / found, R = right / there are; macro-F1 its mean over classes

over the classes that occur or are found. Entities count when their sort and both ends are right, as CoNLL-2003's
evaluation has it (Tjong Kim Sang and De Meulder, cs/0306050, section 2.3). Where labels have no B-, I- …, a run of
equal labels is an entity, but for the label of what is outside. R targets, E records, L labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from stages.data.labelled import UNKNOWN, Batch, Examples, labelled_records
from stages.models.heads import Classifier
from stages.run import Run
from stages.store.classifiers import RESULT, Classified, Example, Head, PerClass
from stages.store.datasets import Dataset
from stages.store.errors import UserError
from stages.store.files import write_atomic
from stages.store.records import LabelledRecord
from stages.store.statistics import share

TOKENS_AT_ONCE = 16_384
OUTSIDE = ("O", "o", "other", "OTHER", "none", "0")
"""What people call a word that is of no entity."""

PREFIXES = "BIESLU"
"""Of the schemes BIO, BIOES and BILOU: begin, inside, end, single, last, unit."""

Entity = tuple[str, int, int]
"""Sort, first word, and the word behind the last."""


class Answers(NamedTuple):
    """What a model says of some records."""

    numbers: NDArray[np.int64]
    """(E,): which of the examples."""
    starts: NDArray[np.int64]
    """(E + 1,): where their targets begin."""
    targets: NDArray[np.int64]
    """(R,): UNKNOWN for a label that the model does not have."""
    found: NDArray[np.int64]
    """(R,): the likeliest label; for words that the model did not see, that of what is outside, else UNKNOWN."""
    log_p: NDArray[np.float64]
    """(R,): of the right label in nats; NaN where the model was not asked, or has no such label."""

    @property
    def right(self) -> NDArray[np.bool_]:
        """(R,): whether the likeliest label is the right one; False where there is none."""
        return (self.targets == self.found) & (self.targets != UNKNOWN)

    @property
    def loss(self) -> float:
        """Mean −log p of the right label in nats; 0 for none."""
        known = self.log_p[~np.isnan(self.log_p)]
        return float(-known.mean()) if len(known) else 0.0

    def own(self, row: int) -> slice:
        """The targets of a record."""
        return slice(int(self.starts[row]), int(self.starts[row + 1]))


class Tensors(NamedTuple):
    """A batch on the model's device, as `Classifier` takes it."""

    tokens: torch.Tensor
    documents: torch.Tensor
    types: torch.Tensor
    places: torch.Tensor
    groups: torch.Tensor
    targets: torch.Tensor

    @classmethod
    def of(cls, batch: Batch, device: torch.device) -> Tensors:
        return cls(*(torch.from_numpy(part).to(device) for part in batch))


@torch.no_grad()
def ask(
    model: Classifier,
    examples: Examples,
    numbers: NDArray[np.int64],
    progress: Callable[[int, int], object] | None = None,
) -> Answers:
    """Have the model label these examples, as many at once as TOKENS_AT_ONCE hold."""
    model.eval()
    device, head = model.body.tokens.device, model.head
    sizes = np.diff(examples.target_starts)[numbers]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    outside = next((head.labels.index(name) for name in OUTSIDE if name in head.labels), UNKNOWN)
    targets, found = np.full(starts[-1], UNKNOWN), np.full(starts[-1], outside if head.each_token else UNKNOWN)
    log_p, done = np.full(starts[-1], np.nan), 0
    for rows in _batches(examples.sizes[numbers]):
        batch = Tensors.of(examples.batch(numbers[rows]), device)
        h_NC = model.hidden_states(batch.tokens, batch.documents, batch.types)
        log_p_RL = model.answers(h_NC, batch.documents, batch.groups, batch.places).log_softmax(-1).cpu()
        asked = np.concatenate([np.flatnonzero(examples.asked(int(numbers[row]))) + starts[row] for row in rows])
        wanted = batch.targets.cpu().clamp(min=0)
        found[asked] = log_p_RL.argmax(-1).numpy()
        log_p[asked] = log_p_RL.gather(1, wanted[:, None])[:, 0].double().numpy()
        done += len(rows)
        if progress:
            progress(done, len(numbers))
    for row, number in enumerate(numbers):
        first, last = examples.target_starts[number : number + 2]
        targets[starts[row] : starts[row + 1]] = examples.targets[first:last]
    log_p[targets == UNKNOWN] = np.nan
    return Answers(numbers, starts, targets, found, log_p)


def confusion(answers: Answers, labels: int) -> NDArray[np.int64]:
    """(L, L): how often the label of the row was taken for that of the column."""
    both = (answers.targets != UNKNOWN) & (answers.found != UNKNOWN)
    counts = np.zeros((labels, labels), np.int64)
    np.add.at(counts, (answers.targets[both], answers.found[both]), 1)
    return counts


def per_class(answers: Answers, labels: Sequence[str]) -> list[PerClass]:
    """Precision, recall and F1 of each class that occurs or is found."""
    rows = []
    for number, label in enumerate(labels):
        there, found = int((answers.targets == number).sum()), int((answers.found == number).sum())
        right = int((answers.right & (answers.targets == number)).sum())
        if there or found:
            rows.append(_figures(label, right, found, there))
    return rows


def macro_f1(rows: Sequence[PerClass]) -> float:
    """The mean of F1; 0 for no classes."""
    return sum(row.f1 for row in rows) / len(rows) if rows else 0.0


def entities(labels: Sequence[str], outside: str = "O") -> set[Entity]:
    """The entities that labels of words mark: by B-, I-, E-, S- …, else runs of what is not `outside`.

    An I- of another sort than before begins an entity of its own.
    """
    found, sort, first, before = set[Entity](), "", 0, ""
    for place, label in enumerate([*labels, outside]):
        prefix, name = (label[0], label[2:]) if label[1:2] == "-" and label[0] in PREFIXES else ("", label)
        name = "" if label == outside else name
        begins = prefix in ("B", "S", "U") or before in ("E", "S", "L") or name != sort
        if sort and begins:
            found.add((sort, first, place))
        if begins:
            first = place
        sort, before = name, prefix
    return found


def outside_of(labels: Iterable[str]) -> str | None:
    """What the labels call a word of no entity; None where they mark none, as parts of speech do not."""
    return next((name for name in OUTSIDE if name in labels), None)


def entity_figures(answers: Answers, labels: Sequence[str]) -> tuple[list[PerClass], float] | None:
    """Figures of entities by sort, and F1 of all together; None where the labels mark none."""
    outside = outside_of(labels)
    if outside is None:
        return None
    right, found, there = Counter[str](), Counter[str](), Counter[str]()
    for row in range(len(answers.numbers)):
        own = answers.own(row)
        wanted, said = (
            entities(_names(part[own], labels, outside), outside) for part in (answers.targets, answers.found)
        )
        there.update(sort for sort, _, _ in wanted)
        found.update(sort for sort, _, _ in said)
        right.update(sort for sort, _, _ in wanted & said)
    rows = [_figures(sort, right[sort], found[sort], there[sort]) for sort in sorted(there | found)]
    return rows, _figures("", right.total(), found.total(), there.total()).f1


def figures(answers: Answers, head: Head) -> dict[str, float]:
    """What a validation logs of these answers."""
    labels = names_of(head, answers)
    row = {
        "val/loss": answers.loss,
        "val/accuracy": float(answers.right.mean()) if len(answers.right) else 0.0,
        "val/macro_f1": macro_f1(per_class(answers, labels)),
    }
    marked = entity_figures(answers, labels) if head.each_token else None
    return row | ({"val/entity_f1": marked[1]} if marked else {})


def names_of(head: Head, answers: Answers) -> list[str]:
    """The labels by number; of multiple choice the numbers of options, from 1."""
    if head.task != "choice":
        return head.labels
    most = max([0, *answers.targets.tolist(), *answers.found.tolist()])
    return [str(number + 1) for number in range(most + 1)]


def write_classified(
    run: Run,
    model: Classifier,
    dataset: Dataset,
    splits: Sequence[str],
    examples: Examples,
    *,
    name: str,
    step: int,
    worst: int,
) -> Classified:
    """Judge these examples and write classified.json into the run's directory. UserError when there are none.

    name: of the checkpoint, as people write it. worst: how many examples are kept to read.
    """
    split = " and ".join(splits)
    if not len(examples):
        raise UserError(f"The {split} part of {dataset.name!r} has no record of the task {model.head.task}.")

    def labelling(done: int, total: int) -> None:
        run.progress(done, total, unit="records", phase="labelling")

    answers = ask(model, examples, np.arange(len(examples)), labelling)
    labels = names_of(model.head, answers)
    classes = per_class(answers, labels)
    marked = entity_figures(answers, labels) if model.head.each_token else None
    found = Classified(
        checkpoint=name,
        step=step,
        dataset=dataset.name,
        dataset_digest=dataset.info.digest,
        split=split,
        task=model.head.task,
        labels=labels,
        records=len(examples),
        accuracy=share(float(answers.right.sum()), len(answers.right)),
        macro_f1=macro_f1(classes),
        loss=answers.loss,
        classes=classes,
        entities=marked[0] if marked else [],
        entity_f1=marked[1] if marked else None,
        confusion=confusion(answers, len(labels)).tolist(),
        worst=_worst(answers, examples, dataset, splits, labels, worst),
    )
    write_atomic(run.dir.path / RESULT, msgspec.json.format(msgspec.json.encode(found), indent=1))
    return found


def _worst(
    answers: Answers, examples: Examples, dataset: Dataset, splits: Sequence[str], labels: Sequence[str], count: int
) -> list[Example]:
    """The records whose right labels the model thinks least likely, with what it says; unknown labels come first."""
    means = np.array([_mean(answers.log_p[answers.own(row)]) for row in range(len(answers.numbers))])
    rows = np.argsort(means, kind="stable")[:count]
    places = {int(examples.places_in_set[answers.numbers[row]]): int(row) for row in rows}
    kept: dict[int, LabelledRecord] = {}
    for place, record in enumerate(record for split in splits for record in labelled_records(dataset, split)):
        if place in places:
            kept[places[place]] = record
    return [_example(answers, examples, int(row), kept[int(row)], means[row], labels) for row in rows]


def _example(
    answers: Answers, examples: Examples, row: int, record: LabelledRecord, mean: float, labels: Sequence[str]
) -> Example:
    found = [labels[number] if number != UNKNOWN else "—" for number in answers.found[answers.own(row)]]
    wanted = record.labels or [str(int(record.label or 0) + 1) if record.task == "choice" else record.label or ""]
    return Example(
        texts=record.texts,
        wanted=wanted,
        found=found,
        probability=float(np.exp(mean)),
        record=int(examples.records[answers.numbers[row]]),
    )


def _mean(log_p: NDArray[np.float64]) -> float:
    """The mean of what is known; −inf where nothing is, so that such records come first."""
    known = log_p[~np.isnan(log_p)]
    return float(known.mean()) if len(known) else -np.inf


def _names(numbers: NDArray[np.int64], labels: Sequence[str], outside: str) -> list[str]:
    return [labels[number] if number != UNKNOWN else outside for number in numbers]


def _figures(label: str, right: int, found: int, there: int) -> PerClass:
    precision, recall = right / found if found else 0.0, right / there if there else 0.0
    f1 = 2 * right / (found + there) if found + there else 0.0
    return PerClass(label=label, precision=precision, recall=recall, f1=f1, count=there)


def _batches(sizes: NDArray[np.int64]) -> Iterable[NDArray[np.int64]]:
    """Rows in batches of about TOKENS_AT_ONCE, short ones together."""
    order, start = np.argsort(sizes, kind="stable"), 0
    while start < len(order):
        stop, total = start + 1, int(sizes[order[start]])
        while stop < len(order) and total + int(sizes[order[stop]]) <= TOKENS_AT_ONCE:
            total += int(sizes[order[stop]])
            stop += 1
        yield order[start:stop]
        start = stop
