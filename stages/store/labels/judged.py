"""Labels in force as preference and chat records: what export, statistics and datasets are made from."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

import msgspec

from stages.store.labels.records import Completion, Label, Prompt
from stages.store.labels.store import Labels
from stages.store.records import ChatRecord, Message, Part, PreferenceRecord


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Which labels are meant. Empty collections mean all."""

    sets: Collection[str] = ()
    annotators: Collection[str] = ()
    parts: Collection[Part] = ()
    since: float = 0.0
    until: float = float("inf")
    """Seconds since the epoch."""
    repeats: bool = False
    """Whether judgements of prompts asked again count, too."""
    models: bool = False
    """Whether labels that a model gave count, too: never unasked."""


class Judged(NamedTuple):
    """A label with what it is about. `completions` stand in the order in which they were shown."""

    label: Label
    set_name: str
    prompt: Prompt
    completions: list[Completion]


def judged(labels: Labels, choice: Choice | None = None) -> Iterator[Judged]:
    """The labels that are meant, in the order in which they were given."""
    wanted = choice or Choice()
    names = {one.id: one.name for one in labels.sets()}
    for label in labels.labels():
        name = names[label.set_id]
        if (wanted.sets and name not in wanted.sets) or not wanted.since <= label.created < wanted.until:
            continue
        if label.origin.startswith("model:") and not wanted.models:
            continue
        if (wanted.annotators and label.annotator not in wanted.annotators) or (label.repeats and not wanted.repeats):
            continue
        prompt = labels.prompt(label.prompt_id)
        if wanted.parts and prompt.part not in wanted.parts:
            continue
        yield Judged(label, name, prompt, labels.completions(label.shown))


def preference_of(one: Judged) -> PreferenceRecord | None:
    """The ranking as a record, best first; None for a label that ranks nothing (a skip, a flag, an answer)."""
    if one.label.kind not in ("rank", "pair", "rate") or one.label.ranks is None or len(one.completions) < 2:
        return None
    order = sorted(range(len(one.completions)), key=lambda i: (one.label.ranks[i], i))  # type: ignore[index]  # checked
    scores = one.label.scores
    checkpoints = [one.completions[i].checkpoint or one.completions[i].author for i in order]
    meta = {
        **one.prompt.meta,
        "part": one.prompt.part,
        "set": one.set_name,
        "label": one.label.id,
        "checkpoints": checkpoints,
        **({"origin": one.label.origin} if one.label.origin else {}),
        **({"note": one.label.note} if one.label.note else {}),
        **({"verdict": one.label.verdict} if one.label.verdict else {}),
    }
    return PreferenceRecord(
        messages=one.prompt.messages,
        completions=[one.completions[i].text for i in order],
        ranks=[one.label.ranks[i] for i in order],
        scores=None if scores is None else [scores[i] for i in order],
        annotator=one.label.annotator,
        source=one.prompt.source or "labels",
        meta=meta,
    )


def chat_of(one: Judged, labels: Labels) -> ChatRecord | None:
    """The answer that a person wrote, or the one they ranked alone at the top; None where there is none."""
    if one.label.kind == "write" and one.label.completion is not None:
        (best,) = labels.completions([one.label.completion])
    elif one.label.ranks is not None and one.label.verdict != "all bad" and one.label.ranks.count(1) == 1:
        best = one.completions[one.label.ranks.index(1)]
    else:
        return None
    meta = {**one.prompt.meta, "part": one.prompt.part, "set": one.set_name, "annotator": one.label.annotator}
    answer = Message("assistant", best.text)
    return ChatRecord(messages=[*one.prompt.messages, answer], source=one.prompt.source or "labels", meta=meta)
