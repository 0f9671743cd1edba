"""What is known of a reward model: reward.json beside its weights, and report cards."""

from __future__ import annotations

from pathlib import Path

import msgspec

from stages.store.errors import UserError
from stages.store.files import read_facts
from stages.store.records import Message
from stages.store.rundir import RunDir
from stages.store.statistics import Share

FILE, CARD = "reward.json", "report.json"


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """Where raw scores lie on reference samples. Differences of raw scores are log-odds, and stay what they are."""

    mean: float = 0.0
    std: float = 1.0
    samples: int = 0
    """Completions they were taken over; 0: nobody knows, and normalised scores are the raw ones."""

    def normal(self, score: float) -> float:
        """The score with mean 0 and standard deviation 1 on the reference samples."""
        return (score - self.mean) / self.std


def read_scale(folder: Path) -> Scale:
    """The scale of the reward model in a folder; that of raw scores for a folder that others wrote."""
    path = folder / FILE
    return read_facts(path, Scale) if path.exists() else Scale()


class Bin(msgspec.Struct, frozen=True, kw_only=True):
    """Pairs of about the same confidence: the mean of it, and the share that the model ordered rightly."""

    pairs: int
    confidence: float
    accuracy: float


class Disagreement(msgspec.Struct, frozen=True, kw_only=True):
    """A pair that the model orders against its annotator. Scores are normalised."""

    messages: list[Message]
    better: str
    """What the annotator preferred."""
    worse: str
    better_score: float
    worse_score: float
    probability: float
    """By the model, that `better` is preferred."""
    annotator: str = ""


class ReportCard(msgspec.Struct, frozen=True, kw_only=True):
    """How a reward model judges a dataset: report.json in a run's directory."""

    checkpoint: str
    """As people write it: run@step, or a model's name."""
    step: int
    dataset: str
    dataset_digest: str
    split: str
    prompts: int
    completions: int
    accuracy: Share
    """Untied pairs whose better completion has the higher score."""
    ece: float
    """Expected calibration error over `bins`."""
    bins: list[Bin]
    scale: Scale
    """Of raw scores on these completions."""
    deciles: list[float]
    """Of the checkpoint's normalised scores, from the lowest score to the highest: 11 numbers."""
    length_correlation: float | None
    """Pearson's, of score and tokens over all completions; None where one of them never differs."""
    length_within: float | None
    """The same within prompts: of both less their means over the prompt."""
    longer_scores_higher: Share
    """Untied pairs of unequal length in which the model prefers the longer."""
    longer_preferred: Share
    """Those in which the annotator does."""
    points: list[tuple[int, float]]
    """Tokens and normalised score of some completions, to plot."""
    worst: list[Disagreement]
    label_sets: list[str] = []
    """Sets of labels.db that the records come from: their annotators' agreement is the ceiling."""
    schema: int = 1


def read_card(run: RunDir) -> ReportCard:
    """The report card of a run; UserError when there is none or it cannot be read."""
    path = run.path / CARD
    if not path.exists():
        raise UserError(f"{run.id} has no report card.", "A run of `workbench train reward` writes one at its end.")
    return read_facts(path, ReportCard)
