"""What a reward model made of a label set: labels in its name, and which prompts a person had best be asked next."""

from __future__ import annotations

from collections import defaultdict
from typing import Literal

from stages.store.errors import UserError
from stages.store.labels import Candidate, Label, Labels, LabelSet, Prompt
from stages.store.rundir import RunDir
from stages.store.scores import Line, disagreement, read_scores, uncertainty

By = Literal["uncertain", "disagreement"]

MODEL = "model:"
"""How annotator and origin of a label begin that a model gave: such labels count nowhere unless they are asked for."""


def take_in_scores(labels: Labels, run: RunDir) -> int:
    """Store the order of a scoring run's candidates as labels of the model `model:NAME@STEP`; how many were new.

    What the same checkpoint has judged before is left alone, so that taking a run in twice adds nothing.
    """
    chosen = labels.find_set(_set_of(run))
    made = [
        label
        for line in read_scores(run)
        if (label := _label(labels, chosen, line)) is not None
        and labels.label_of(chosen.id, line.place, label.annotator) is None
    ]
    return labels.save_all(made)


def ask_next(labels: Labels, run: RunDir, name: str, by: By, most: int) -> LabelSet:
    """Make a label set of the prompts that are worth asking: where the model is least sure, or contradicts people most.

    The most telling come first. Raises UserError when there are none.
    """
    chosen = labels.find_set(_set_of(run))
    lines, people = read_scores(run), defaultdict[int, list[Label]](list)
    for label in labels.labels(chosen.id):
        if label.ranks is not None and not label.origin.startswith(MODEL):
            people[label.place].append(label)
    worth = {
        line.place: uncertainty(line.scores) if by == "uncertain" else _contradiction(line, people[line.place])
        for line in lines
    }
    best = sorted((place for place, value in worth.items() if value > 0), key=lambda place: -worth[place])[:most]
    if not best:
        raise UserError(
            f"No prompt of {chosen.name!r} is worth asking.",
            "Have people judge some first." if by == "disagreement" else "Sample completions that differ.",
        )
    tasks = [task for place in best if (task := _task(labels, chosen, place)) is not None]
    return labels.add_set(name, chosen.mode, tasks, people=chosen.people, repeat_share=chosen.repeat_share)


def _set_of(run: RunDir) -> str:
    spec = run.spec()
    if spec.stage != "label":
        raise UserError(f"The run {spec.name!r} has judged no label set.")
    return str(spec.settings["label_set"])


def _label(labels: Labels, chosen: LabelSet, line: Line) -> Label | None:
    shown = labels.at(chosen.id, line.place)
    if shown is None or {one.id for one in shown.completions} != set(line.shown):
        return None
    return Label(
        id=0,
        kind="pair" if chosen.mode == "pair" else "rank",
        set_id=chosen.id,
        place=line.place,
        prompt_id=shown.prompt_id,
        annotator=MODEL + line.checkpoint,
        shown=line.shown,
        ranks=line.ranks,
        origin=MODEL + line.checkpoint,
    )


def _contradiction(line: Line, judgements: list[Label]) -> float:
    """How far the model contradicts the person whom it contradicts most, in nats; 0 where nobody has judged."""
    at = dict(zip(line.shown, line.scores, strict=True))
    known = [one for one in judgements if set(one.shown) <= at.keys()]
    return max((disagreement([at[id_] for id_ in one.shown], one.ranks or []) for one in known), default=0.0)


def _task(labels: Labels, chosen: LabelSet, place: int) -> tuple[Prompt, list[Candidate]] | None:
    shown = labels.at(chosen.id, place)
    if shown is None:
        return None
    origin = f"set:{chosen.name}#{place}"
    texts = sorted(shown.completions, key=lambda one: one.id)
    return shown.prompt, [
        Candidate(run=origin, k=k, text=one.text, checkpoint=one.checkpoint, ended=one.ended, author=one.author)
        for k, one in enumerate(texts)
    ]
