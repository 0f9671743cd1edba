"""Judging outside the Rank place: what somebody says of answers that came up in a chat or a duel, into labels.db."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from stages.store.chat import Done, Facts, Turn, well_formed
from stages.store.labels import Candidate, Label, Prompt, open_labels
from stages.store.labels.records import Mode
from stages.store.records import Message, part_of
from stages.store.specs.chat import Chat
from stages.store.workspace import Workspace

CHAT, DUELS = "chat", "duels"
"""Names of the label sets: rankings of the answers to a turn of a chat, and votes between two checkpoints."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer as it came from a chat process."""

    text: str
    checkpoint: str
    sampling: dict[str, object]
    """Settings, seed and digest of the checkpoint, as `Candidate.sampling`."""
    done: Done


def answer_of(text: str, done: Done, facts: Facts, sampling: Chat) -> Answer:
    """What came from the model of `facts`, with all that is needed to have it come again."""
    used = {key: value for key, value in msgspec.to_builtins(sampling).items() if key != "system"}
    return Answer(
        text=well_formed(text),
        checkpoint=named(facts),
        sampling={**used, "seed": done.seed, "digest": facts.digest},
        done=done,
    )


def named(facts: Facts) -> str:
    """A loaded checkpoint as labels name it."""
    return f"{facts.name}@{facts.step}" if facts.step else facts.name


def prompt_of(turns: Sequence[Turn], source: str) -> Prompt:
    """A conversation up to its last question."""
    messages = [msgspec.convert({"role": turn.role, "content": well_formed(turn.content)}, Message) for turn in turns]
    return Prompt(messages=messages, part=part_of(messages), source=source)


def candidates_of(answers: Sequence[Answer], run: str, first: int = 0) -> list[Candidate]:
    """Answers as candidates; equal texts once. `run` names the conversation, `first` numbers the answers in it."""
    found: dict[str, Candidate] = {}
    for k, one in enumerate(answers, first):
        fields = {"checkpoint": one.checkpoint, "sampling": one.sampling, "ended": one.done.reason}
        found.setdefault(one.text, Candidate(run=run, k=k, text=one.text, **fields))  # type: ignore[arg-type]  # by name
    return list(found.values())


def save_judgement(
    workspace: Workspace,
    annotator: str,
    set_name: str,
    mode: Mode,
    prompt: Prompt,
    shown: Sequence[Candidate],
    *,
    ranks: Sequence[int],
    verdict: str = "",
    seconds: float = 0.0,
) -> Label:
    """Store ranks of candidates, which stand in the order in which they were shown; on the disk when this returns.

    The set is made where there is none. What this person said before of the same texts by the same checkpoints is
    superseded. Raises UserError when there is a set of that name which is judged in another way.
    """
    with open_labels(workspace.ensure().labels) as labels:
        chosen = labels.add_set(set_name, mode, [(prompt, shown)], by_writer=True)
        place = labels.place_by_writer(chosen.id, labels.add_prompt(prompt), shown)
        stored = labels.at(chosen.id, place) if place is not None else None
        assert place is not None and stored is not None, "what was just put into the set is there"
        by_text = {one.text: one for one in stored.completions}
        stood = msgspec.structs.replace(stored, completions=[by_text[one.text] for one in shown])
        earlier = labels.label_of(chosen.id, place, annotator)
        label = stood.label(
            "pair" if mode == "pair" else "rank",
            annotator,
            ranks=list(ranks),
            verdict=verdict,
            seconds=seconds,
            supersedes=earlier.id if earlier is not None else None,
        )
        return labels.save(label)


def take_back(workspace: Workspace, label: Label) -> None:
    """Take a judgement back; it stays in the file, with a row that says so."""
    with open_labels(workspace.labels) as labels:
        labels.undo(label)
