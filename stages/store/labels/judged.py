"""Labels in force as preference and chat records: what export, statistics and datasets are made from."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import islice
from typing import NamedTuple

import msgspec

from stages.store.labels.records import Completion, Label, Prompt
from stages.store.labels.store import Labels
from stages.store.records import ChatRecord, Message, Part, PreferenceRecord

BATCH = 500
"""Labels for which prompts and completions are read at once."""


OF_LABEL = ("set", "label", "checkpoints", "origin", "note", "verdict")
"""What the meta of an exported ranking says of the label; the rest, and `part`, are the prompt's."""


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
    overruled: bool = False
    """Whether labels count, too, that disagreed and in whose place a later one speaks (`Label.settles`)."""


class Judgement(NamedTuple):
    """A label with what it is about. `completions` stand in the order in which they were shown."""

    label: Label
    set_name: str
    prompt: Prompt
    completions: list[Completion]


def judged(labels: Labels, choice: Choice | None = None) -> Iterator[Judgement]:
    """The labels that are meant, in the order in which they were given."""
    wanted = choice or Choice()
    names = {one.id: one.name for one in labels.sets()}
    given = labels.labels()
    overruled = set() if wanted.overruled else {id_ for one in given for id_ in one.settles or ()}
    meant = [one for one in given if one.id not in overruled and _is_meant(one, names[one.set_id], wanted)]
    for start in range(0, len(meant), BATCH):
        batch = meant[start : start + BATCH]
        prompts = labels.prompts({one.prompt_id for one in batch})
        completions = iter(labels.completions([id_ for one in batch for id_ in one.shown]))
        for one in batch:
            shown, prompt = list(islice(completions, len(one.shown))), prompts[one.prompt_id]
            if not wanted.parts or prompt.part in wanted.parts:
                yield Judgement(one, names[one.set_id], prompt, shown)


def _is_meant(label: Label, name: str, wanted: Choice) -> bool:
    return (
        (not wanted.sets or name in wanted.sets)
        and wanted.since <= label.created < wanted.until
        and (wanted.models or not label.origin.startswith("model:"))
        and (not wanted.annotators or label.annotator in wanted.annotators)
        and (wanted.repeats or not label.repeats)
    )


def preference_of(one: Judgement) -> PreferenceRecord | None:
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


def chat_of(one: Judgement, labels: Labels) -> ChatRecord | None:
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
