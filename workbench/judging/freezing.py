"""Labels frozen as a dataset: which are meant, the records that they make, and the file that a build reads."""

from __future__ import annotations

import datetime
import io
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from stages.store.datasets import Kind
from stages.store.errors import UserError
from stages.store.labels import Labels
from stages.store.labels.figures import figures
from stages.store.labels.judged import Choice, Judgement, chat_of, judged, preference_of
from stages.store.names import nearest
from stages.store.records import Record
from stages.store.sources import spool
from stages.store.specs.base import about
from stages.store.workspace import Workspace

NOTHING = UserError("No label that was chosen makes a record.", "Ask for more, or label some first.")


class Freeze(msgspec.Struct, kw_only=True, frozen=True):
    """What a dataset is made of labels, and of which."""

    makes: Annotated[
        Literal["rankings", "best answers"],
        about("Preferences; or conversations with what was best."),
    ] = "rankings"
    annotators: Annotated[list[str], about("Only these people's labels, separated by commas; empty: everybody's.")] = []
    part: Annotated[
        Literal["any", "sft", "reward", "policy", "eval"], about("Only prompts that belong to this part.")
    ] = "any"
    only_agreed: Annotated[bool, about("Leave out prompts on which people are in conflict.")] = False
    since: Annotated[str, about("Only labels from this day on: 2026-05-01 (UTC).")] = ""
    until: Annotated[str, about("Only labels from before this day.")] = ""
    by_models: Annotated[bool, about("Labels that a model gave, too.")] = False

    def choice(self, sets: Iterable[str]) -> Choice:
        """The labels that are meant, of these sets. UserError for what is no day."""
        return Choice(
            sets=tuple(sets),
            annotators=self.annotators,
            parts=() if self.part == "any" else (self.part,),
            models=self.by_models,
            since=day(self.since) if self.since.strip() else 0.0,
            until=day(self.until) if self.until.strip() else float("inf"),
        )


class Frozen(NamedTuple):
    """The records that labels make, and what they come from."""

    records: list[Record]
    annotators: Counter[str]
    """Records by whose labels they are."""
    prompts: int
    conflicts: int
    """Prompts that were left out because people are in conflict about them."""
    sets: list[str]
    """Names of the label sets that they are from."""


def freeze(labels: Labels, choice: Choice, *, best: bool, agreed: bool) -> Frozen:
    """The records that the chosen labels make. UserError for a set or a person that there is not."""
    refuse_unknown(labels, choice)
    meant = list(judged(labels, choice))
    conflicts = {(one.set_name, one.place) for one in figures(meant).conflicts} if agreed else set()
    kept = [one for one in meant if (one.set_name, one.label.place) not in conflicts]
    made = [(one, record) for one in kept if (record := _record(one, labels, best)) is not None]
    return Frozen(
        [record for _, record in made],
        Counter(one.label.annotator for one, _ in made),
        len({one.label.prompt_id for one, _ in made}),
        len(conflicts),
        list(dict.fromkeys(one.set_name for one, _ in made)),
    )


def refuse_unknown(labels: Labels, choice: Choice) -> None:
    """UserError for a set or a person that there is not, naming the nearest."""
    for name in choice.sets:
        labels.find_set(name)
    people = labels.annotators()
    for who in choice.annotators:
        if who not in people:
            raise UserError(f"Nobody called {who!r} has labelled here.", nearest(who, people))


def kind_of(best: bool) -> Kind:
    """The kind of the dataset."""
    return "chat" if best else "preference"


def spooled(workspace: Workspace, name: str, records: Iterable[Record]) -> Path:
    """The records in a file of the workspace, which the build that reads it removes. UserError when it has none."""
    data = b"".join(msgspec.json.encode(record) + b"\n" for record in records)
    if not data:
        raise NOTHING
    return spool(io.BytesIO(data), workspace.ensure().root, name)


def day(text: str) -> float:
    """The start of a day in UTC, in seconds since the epoch."""
    try:
        return datetime.datetime.strptime(text.strip(), "%Y-%m-%d").replace(tzinfo=datetime.UTC).timestamp()
    except ValueError:
        raise UserError(f"{text!r} is no day.", "Give it as 2026-05-01.") from None


def build_settings(settings: dict[str, Any], path: Path, sets: list[str], *, best: bool) -> dict[str, Any]:
    """What the build is told: the settings, with the file as its source, and the label sets that it is from."""
    return {**settings, "sources": [str(path)], "kind": kind_of(best), "label_sets": sets}


def _record(one: Judgement, labels: Labels, best: bool) -> Record | None:
    return chat_of(one, labels) if best else preference_of(one)
