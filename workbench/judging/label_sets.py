"""Making a label set from records: rankings that are there already become labels of whoever gave them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from stages.store import datasets
from stages.store.errors import UserError
from stages.store.labels import Candidate, Label, Labels, LabelSet, Prompt, Shown
from stages.store.labels.judged import OF_LABEL
from stages.store.labels.records import Mode
from stages.store.records import KINDS, ChatRecord, PreferenceRecord, PromptRecord, Record, part_of

SAID = ("note", "verdict", "origin")
"""What the meta of a ranking may say of it."""

MOST = 9
"""Candidates of one prompt that can be judged."""


def decoded(kind: datasets.Kind, records: Iterable[Any]) -> list[Record]:
    """Records as the desk hands them over, as structs."""
    return [msgspec.convert(record, KINDS[kind]) for record in records]


def tasks_of(records: Iterable[Record], origin: str, first: int = 0) -> Iterator[tuple[Prompt, list[Candidate]]]:
    """Each record as a prompt with candidates; `origin` names where they come from, `first` is the first one's number.

    Prompts have none, conversations lose their last answer, preferences bring their completions. UserError for records
    of another kind, and for more candidates than can be judged.
    """
    for number, record in enumerate(records, first):
        if isinstance(record, PreferenceRecord):
            if len(record.completions) > MOST:
                count = len(record.completions)
                raise UserError(f"Record {number + 1} has {count} completions; at most {MOST} can be judged at once.")
            run = f"{origin}#{number}"
            texts = enumerate(record.completions)
            candidates = [Candidate(run=run, k=k, text=text, checkpoint=_writer(record, k)) for k, text in texts]
            messages = record.messages
        elif isinstance(record, PromptRecord):
            messages, candidates = record.messages, []
        elif isinstance(record, ChatRecord):
            last = max((i for i, message in enumerate(record.messages) if message.role == "assistant"), default=-1)
            messages, candidates = record.messages[: last if last > 0 else None], []
        else:
            raise UserError("Only prompts, conversations and preferences can be judged.", "Choose such a dataset.")
        answer = record.answer if isinstance(record, PromptRecord) else None
        part = part_of(messages, record.meta)
        meta = {key: value for key, value in record.meta.items() if key not in OF_LABEL}
        yield Prompt(messages=messages, part=part, answer=answer, source=record.source, meta=meta), candidates


def mode_for(kind: datasets.Kind, mode: Mode | None) -> Mode:
    """How a set from records of a kind is judged when nobody says: preferences by rank, others by writing."""
    if mode is None:
        return "rank" if kind == "preference" else "write"
    if mode != "write" and kind != "preference":
        raise UserError(
            f"Records of kind {kind} have no completions to {mode}.",
            "Choose the mode write, or a dataset of preferences.",
        )
    return mode


def make_set(
    labels: Labels,
    name: str,
    kind: datasets.Kind,
    records: list[Record],
    dataset: str,
    *,
    mode: Mode | None,
    people: int,
    repeat_share: float,
    rankings: bool,
) -> tuple[LabelSet, int]:
    """All records of a dataset as a new set, at once: it is whole, or is not. Also how many rankings came with them.

    mode: None for what suits the kind. rankings: whether those that preferences bring become labels.
    """
    origin = f"dataset:{dataset}"
    tasks = tasks_of(records, origin)
    chosen = labels.add_set(name, mode_for(kind, mode), tasks, people=people, repeat_share=repeat_share)
    if rankings and chosen.mode in ("rank", "pair"):
        return chosen, take_in_labels(labels, chosen, records, origin)
    return chosen, 0


def take_in_labels(labels: Labels, chosen: LabelSet, records: Iterable[Record], origin: str) -> int:
    """Store the rankings that preference records bring from `origin`, by their annotators; how many there were.

    A prompt that its annotator has judged in this set is left alone, so that taking records in twice adds nothing.
    """
    ranked = [one for one in records if isinstance(one, PreferenceRecord) and len(set(one.completions)) > 1]
    asked = [Prompt(messages=one.messages, part=part_of(one.messages, one.meta), source=one.source) for one in ranked]
    made: dict[tuple[int, str], Label] = {}
    for record, prompt_id in zip(ranked, labels.add_prompts(asked), strict=True):
        place = labels.place_of(chosen.id, prompt_id, record.completions)
        shown = labels.at(chosen.id, place) if place is not None else None
        annotator = record.annotator or "import"
        if shown is not None and labels.label_of(chosen.id, shown.place, annotator) is None:
            made.setdefault((shown.place, annotator), _as_label(record, shown, annotator, chosen.mode, origin))
    return labels.save_all(made.values())


def _as_label(record: PreferenceRecord, shown: Shown, annotator: str, mode: Mode, origin: str) -> Label:
    """The ranking of a record, its completions in the order in which it names them.

    A note and a verdict that came with it are kept, and that a model gave it.
    """
    at = {text: k for k, text in reversed(list(enumerate(record.completions)))}
    ordered = sorted(shown.completions, key=lambda one: at[one.text])
    ranks = [record.ranks[at[one.text]] for one in ordered]
    scores = None if record.scores is None else [record.scores[at[one.text]] for one in ordered]
    stood = msgspec.structs.replace(shown, completions=ordered)
    note, verdict, given = (said if isinstance(said := record.meta.get(key), str) else "" for key in SAID)
    return stood.label(
        "pair" if mode == "pair" else "rank",
        annotator,
        ranks=ranks,
        scores=scores,
        note=note,
        verdict=verdict,
        origin=given if given.startswith("model:") else origin,
    )


def _writer(record: PreferenceRecord, k: int) -> str:
    """Which model wrote a completion, where the record says so."""
    for key in ("checkpoints", "models"):
        names = record.meta.get(key)
        if isinstance(names, list) and k < len(names) and isinstance(names[k], str):
            return names[k]
    return ""
