"""What is known of a model that labels texts: classifier.json beside its weights, and how it does on a dataset."""

from __future__ import annotations

from pathlib import Path

import msgspec

from stages.store.errors import UserError
from stages.store.files import read_facts
from stages.store.records import Task
from stages.store.rundir import RunDir
from stages.store.statistics import Share

FILE, RESULT = "classifier.json", "classified.json"


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What a model says of texts. classifier.json of its folder."""

    task: Task
    labels: list[str]
    """In the order of the model's outputs; of multiple choice none, for each option is scored by itself."""
    both_orders: bool = False
    """Whether pairs are read in both orders and the outputs summed."""
    schema: int = 1

    @property
    def outputs(self) -> int:
        """Numbers that the head gives for a sequence or a token."""
        return max(1, len(self.labels))

    @property
    def each_token(self) -> bool:
        """Whether tokens are labelled, rather than sequences."""
        return self.task == "tokens"


class PerClass(msgspec.Struct, frozen=True, kw_only=True):
    """One class, or one sort of entity."""

    label: str
    precision: float
    recall: float
    f1: float
    count: int
    """How many there are."""


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """A record that the model is least sure of, or most wrong about."""

    texts: list[str]
    wanted: list[str]
    """The right label; of words one each."""
    found: list[str]
    """The likeliest, in the same form."""
    probability: float
    """That the model gives the right label; of words the geometric mean."""
    record: int
    """Its number in the split, from 0."""

    @property
    def right(self) -> bool:
        """Whether the likeliest is what was wanted."""
        return self.wanted == self.found


class Classified(msgspec.Struct, frozen=True, kw_only=True):
    """How a model labels a dataset: classified.json in a run's directory."""

    checkpoint: str
    """As people write it: run@step, or a model's name."""
    step: int
    dataset: str
    dataset_digest: str
    split: str
    task: Task
    labels: list[str]
    """Rows and columns of `confusion`; of multiple choice the numbers of the options, from 1."""
    records: int
    accuracy: Share
    """Of records; of words where each has a label."""
    macro_f1: float
    """Mean of F1 over the classes that occur or are found."""
    loss: float
    """Mean −log p of the right label, in nats."""
    classes: list[PerClass]
    entities: list[PerClass] = []
    """By sort, where words are labelled."""
    entity_f1: float | None = None
    """Of whole entities, all sorts together."""
    confusion: list[list[int]]
    """How often a label (row) was taken for a label (column)."""
    worst: list[Example]
    schema: int = 1


def read_classified(run: RunDir) -> Classified:
    """What a run found; UserError when there is nothing or it cannot be read."""
    path = run.path / RESULT
    if not path.exists():
        raise UserError(
            f"{run.id} has not judged its labels.", "A run of `workbench train classify` does so at its end."
        )
    return read_facts(path, Classified)


def is_classifier(folder: Path) -> bool:
    """Whether a checkpoint's folder says that its model labels texts."""
    return (folder / FILE).is_file()
