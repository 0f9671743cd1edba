"""A model that labels, opened to be asked: about texts that people type, or about a dataset."""

from __future__ import annotations

import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from stages.data.labelled import Input, Writer, batch_of
from stages.data.tokenizer import TextTokenizer
from stages.desk import Job
from stages.measuring.assessment import Tensors
from stages.models.heads import load_classifier
from stages.store.checkpoints import resolve_checkpoint
from stages.store.errors import UserError
from stages.training.precision import choose_precision

MOST = 10
"""Labels that are told of a text, the likeliest."""
NEEDED = {
    "classify": (1, 1, "one text"),
    "pair": (2, 2, "two texts"),
    "choice": (3, 1_000, "a question and two options or more"),
    "tokens": (1, 1, "one text"),
}
"""By task: how many texts at least and at most, and in words."""

_using = threading.Lock()


class Labeller:
    """The model of a folder with its tokenizer."""

    def __init__(self, folder: Path, device: torch.device | str = "cpu", *, precision: str = "auto") -> None:
        """Raises UserError for a folder that holds no model that labels, or lacks its tokenizer."""
        if precision == "auto" and torch.device(device).type == "cpu":
            precision = "fp32"
        self.model = load_classifier(folder, choose_precision(precision, torch.device(device)).dtype, device)
        self.tokenizer = TextTokenizer.load(folder)
        context, encoder = self.model.config.context, not self.model.decodes
        self.writer = Writer(self.tokenizer, self.model.head, context, encoder=encoder)

    @torch.inference_mode()
    def label(self, texts: list[str]) -> dict[str, Any]:
        """What the model says of a record of its task, whose texts these are.

        {task, labels: [{label, probability}], cut}, the likeliest first and MOST of them; of a question all options; of
        words {task, words: [{word, label, probability}], cut}, "" for one that the model does not see.
        Raises UserError for another number of texts than the task has.
        """
        task = self.model.head.task
        least, most, needed = NEEDED[task]
        if not least <= len(texts) <= most or not any(text.strip() for text in texts):
            raise UserError(f"This model labels {needed}, and {_counted(texts)} given.", "Put each text into quotes.")
        if task == "tokens":
            return self._words(texts[0].split())
        inputs = next(self.writer.inputs([texts]))
        shares = self._shares(inputs, [])[0]
        names = texts[1:] if task == "choice" else self.model.head.labels
        rows = [{"label": name, "probability": share} for name, share in zip(names, shares, strict=True)]
        rows.sort(key=lambda row: -float(str(row["probability"])))
        return {
            "task": task,
            "labels": rows if task == "choice" else rows[:MOST],
            "cut": any(one.cut for one in inputs),
        }

    def _words(self, words: list[str]) -> dict[str, Any]:
        written, places = self.writer.words(words)
        seen = [place for place in places if place >= 0]
        told = iter(self._shares([written], seen) if seen else [])
        rows = []
        for word, place in zip(words, places, strict=True):
            shares = next(told) if place >= 0 else [0.0]
            best = max(range(len(shares)), key=shares.__getitem__)
            label = self.model.head.labels[best] if place >= 0 else ""
            rows.append({"word": word, "label": label, "probability": shares[best]})
        return {"task": "tokens", "words": rows, "cut": written.cut}

    def _shares(self, inputs: list[Input], places: list[int]) -> list[list[float]]:
        batch = Tensors.of(batch_of(inputs, places), self.model.body.tokens.device)
        h_NC = self.model.hidden_states(batch.tokens, batch.documents, batch.types)
        logits = self.model.answers(h_NC, batch.documents, batch.groups, batch.places)
        shares: list[list[float]] = logits.softmax(-1).tolist()
        return shares


@lru_cache(maxsize=2)
def _opened(folder: str, digest: str) -> Labeller:
    return Labeller(Path(folder))


def of(job: Job, checkpoint: str, texts: list[str]) -> dict[str, Any]:
    """A desk verb: as `Labeller.label`. The model stays in memory for the next question."""
    found = resolve_checkpoint(job.workspace, checkpoint)
    job.check()
    with _using:
        return _opened(str(found.path), found.digest()).label(texts)


def _counted(texts: list[str]) -> str:
    given = [text for text in texts if text.strip()]
    return "no text is" if not given else "1 is" if len(given) == 1 else f"{len(given)} are"
