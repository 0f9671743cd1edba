"""How a model labels a dataset, in words: figures, what is taken for what, and the worst examples."""

from __future__ import annotations

from typing import NamedTuple

from stages.store.classifiers import Classified, Example

NAMED = 3
"""Confusions that the figures name."""
WIDEST = 24
"""Cells of a label beside its row of the matrix."""


class Confusion(NamedTuple):
    """A label that was taken for another, and how often."""

    label: str
    taken_for: str
    times: int

    def __str__(self) -> str:
        return f"{self.label} → {self.taken_for} ×{self.times:,}"


def facts(found: Classified) -> dict[str, str]:
    """Names and values, in the order in which they are read."""
    words = found.task == "tokens"
    asked = f"{found.dataset}, {found.split}: {found.records:,} records"
    told = {
        "model": found.checkpoint,
        "judged on": f"{asked}, {found.accuracy.of:,} words" if words else asked,
        "accuracy": f"{found.accuracy} of {found.accuracy.of:,} {'words' if words else 'records'}",
        "macro-F1": f"{100 * found.macro_f1:.1f} % over {len(found.classes):,} classes",
        "entity F1": "" if found.entity_f1 is None else _of_entities(found),
        "loss": f"{found.loss:.4f} nats",
        "right → said": ", ".join(map(str, confusions(found)[:NAMED])),
    }
    return {name: value for name, value in told.items() if value}


def confusions(found: Classified) -> list[Confusion]:
    """What was taken for what, the most frequent first."""
    labels = found.labels
    mistakes = [
        Confusion(labels[row], labels[column], count)
        for row, counts in enumerate(found.confusion)
        for column, count in enumerate(counts)
        if row != column and count
    ]
    return sorted(mistakes, key=lambda one: -one.times)


def asked(example: Example) -> str:
    """The texts of an example in one line: words as a sentence, several texts with a stroke between them."""
    return (" " if len(example.wanted) > 1 else " | ").join(example.texts)


def answered(example: Example) -> str:
    """What is right of an example and what was said: of words, the first that is mistaken and how many more."""
    if example.right:
        return _named(example.wanted[0]) if len(example.wanted) == 1 else "every word is right"
    wrong = [place for place, label in enumerate(example.wanted) if label != example.found[place]]
    first = wrong[0]
    told = f"{_named(example.wanted[first])} → {_named(example.found[first])}"
    if len(example.wanted) == 1:
        return told
    return f"{example.texts[first]}: {told}" + (f", and {len(wrong) - 1:,} more" if len(wrong) > 1 else "")


def _named(label: str) -> str:
    return label or "(no label)"


def _of_entities(found: Classified) -> str:
    sorts = ", ".join(f"{one.label} {100 * one.f1:.1f}" for one in found.entities)
    return f"{100 * (found.entity_f1 or 0):.1f} %" + (f" ({sorts})" if len(found.entities) > 1 else "")
