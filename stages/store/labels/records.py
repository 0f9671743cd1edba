"""What goes into labels.db and comes out of it."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from stages.store.records import Message, Part

Mode = Literal["rank", "pair", "rate", "write"]
Kind = Literal["rank", "pair", "rate", "write", "skip", "flag", "undo"]

WORST, BEST = 1, 7
"""The ends of the scale for ratings."""

FLAGS = {
    "not helpful": "It does not do what was asked, or not in a way that helps.",
    "not honest": "It says what is false as if it were true, or hides what it does not know.",
    "harmful": "It could hurt somebody, or helps somebody to hurt.",
}
"""The three criteria, after Askell et al., A General Language Assistant as a Laboratory for Alignment (2021)."""


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked. `part` is the part of its prompt set; `answer` is there where one is known."""

    messages: list[Message]
    part: Part
    answer: str | None = None
    source: str = ""
    meta: dict[str, Any] = {}


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A completion as it comes in: the k-th of its run for a prompt. `run` is a run's id, or names another origin."""

    run: str
    k: int
    text: str
    checkpoint: str = ""
    sampling: dict[str, Any] = {}
    """Settings and seed it was sampled with, and under `digest` the digest of the checkpoint."""
    ended: str = ""
    """Why it ended: end, stop or length; empty where nobody knows."""
    author: str = ""
    """The person who wrote it."""


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """A stored completion."""

    id: int
    text: str
    checkpoint: str
    ended: str
    author: str


class LabelSet(msgspec.Struct, frozen=True, kw_only=True):
    """A body of work: how it is judged, by how many people each prompt, and what share is silently asked again."""

    id: int
    name: str
    mode: Mode
    people: int
    repeat_share: float
    prompts: int = 0
    created: float = 0.0


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt as it is put before a person: its completions in the shuffled order in which they are shown."""

    set_id: int
    place: int
    prompt_id: int
    prompt: Prompt
    completions: list[Completion]
    repeats: int | None = None
    """The person's own earlier label, when the prompt is asked again to see whether they agree with themselves."""

    def label(self, kind: Kind, annotator: str, **fields: Any) -> Label:
        """What this person did with it, ready to be stored; `fields` are those of Label."""
        shown = [one.id for one in self.completions]
        where: dict[str, Any] = {"set_id": self.set_id, "place": self.place, "prompt_id": self.prompt_id}
        return Label(id=0, kind=kind, annotator=annotator, shown=shown, repeats=self.repeats, **where, **fields)


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """One confirmed act, as stored.

    `shown` are completion ids in the order of the screen; `ranks` (1 is best, ties equal) and `scores` (1 to 7) stand
    in the same order. `completion` is what was written or flagged. `verdict` is the reason of a skip, the
    criteria of a flag, or "all bad". `origin` is empty for what a person said here; it names the file, dataset or model
    that any other label came from. Those are kept apart, and do not count as work done.
    `settles` are the labels that disagreed, when this one was given to settle that: it speaks in their place.
    """

    id: int
    kind: Kind
    set_id: int
    place: int
    prompt_id: int
    annotator: str
    shown: list[int] = []
    ranks: list[int] | None = None
    scores: list[float] | None = None
    completion: int | None = None
    verdict: str = ""
    note: str = ""
    origin: str = ""
    seconds: float = 0.0
    repeats: int | None = None
    supersedes: int | None = None
    settles: list[int] | None = None
    created: float = 0.0
