"""The world as labelled records, for models that classify: pairs, multiple choice, tokens and whole texts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from stages.data.world import lexicon as lx
from stages.data.world.build import WORLD_VERSION, items
from stages.data.world.draw import Draw
from stages.data.world.items import Record, is_held_out
from stages.data.world.knowledge import upper_first
from stages.data.world.situations import choice, entailment

Task = Literal["classify", "pair", "choice", "tokens"]

TASKS: tuple[Task, ...] = ("classify", "pair", "choice", "tokens")
COUNT = 1_200
VERDICTS = {"yes": "entailment", "no": "contradiction", "maybe": "neutral"}
ENTITIES = {
    "person": (*lx.NAMES, *lx.PEOPLE),
    "place": tuple(land for land, _, _ in lx.LANDS),
    "animal": lx.ANIMALS,
    "food": lx.FOODS,
}
_FRAMES = (
    "{person} lives in {place} and has a {animal} .",
    "In {place} , {person} eats {food} with {person2} .",
    "{person} and {person2} went to {place} to buy a {animal} .",
    "The {animal} of {person} likes {food} .",
    "{person2} sold the {food} to {person} in {place} .",
)


def labelled(task: Task | None = None) -> Iterator[Record]:
    """Records of kind labelled: of one task, or of all four in turn. `meta.part` is "train" or "eval".

    classify: one text (a question), label the family that it belongs to. pair: premise and hypothesis, label
    "entailment", "contradiction" or "neutral". choice: a stem and three options, label the index of the right option.
    tokens: the words of a sentence, `labels` one a word ("person", "place", "animal", "food" or "other").
    """
    makers = {"classify": _classify, "pair": _pairs, "choice": _choices, "tokens": _tokens}
    for name in TASKS if task is None else (task,):
        yield from makers[name]()


def _meta(family: str, held_out: bool) -> dict[str, str | bool]:
    return {"family": family, "part": "eval" if held_out else "train", "held_out": held_out}


def _classify() -> Iterator[Record]:
    draw = Draw("labelled", WORLD_VERSION, "classify")
    asked = [item for part in ("sft", "eval") for item in items(part) if item.family != "unasked_facts"]
    for item in draw.sample(asked, COUNT):
        held_out = item.part == "eval" or (item.part is None and is_held_out(item.key))
        yield {"task": "classify", "texts": [item.prompt], "label": item.family, "meta": _meta(item.family, held_out)}


def _pairs() -> Iterator[Record]:
    draw, seen = Draw("labelled", WORLD_VERSION, "pair"), set[str]()
    while len(seen) < COUNT:
        premise, hypothesis, answer = entailment(draw)
        key = f"{premise} | {hypothesis}"
        if key not in seen:
            seen.add(key)
            texts = [premise, f"{upper_first(hypothesis)}."]
            yield {
                "task": "pair",
                "texts": texts,
                "label": VERDICTS[answer],
                "meta": _meta("entailment", is_held_out(key)),
            }


def _choices() -> Iterator[Record]:
    draw, seen = Draw("labelled", WORLD_VERSION, "choice"), set[str]()
    while len(seen) < COUNT:
        kind, options, answer = choice(draw)
        stem = f"Which of these is a {kind}?".replace(" a animal", " an animal")
        if (key := f"{kind}: {' '.join(sorted(options))}") not in seen:
            seen.add(key)
            label, about = options.index(answer), _meta("choice", is_held_out(key))
            yield {"task": "choice", "texts": [stem, *options], "label": label, "meta": about}


def _tokens() -> Iterator[Record]:
    draw, seen = Draw("labelled", WORLD_VERSION, "tokens"), set[str]()
    while len(seen) < COUNT:
        words, labels = _tagged(draw)
        if (text := " ".join(words)) not in seen:
            seen.add(text)
            about = _meta("entities", is_held_out(text))
            yield {"task": "tokens", "texts": words, "labels": labels, "meta": about}


def _tagged(draw: Draw) -> tuple[list[str], list[str]]:
    person, person2 = draw.sample(ENTITIES["person"], 2)
    chosen = {"person": person, "person2": person2}
    chosen |= {entity: draw.pick(ENTITIES[entity]) for entity in ("place", "animal", "food")}
    words, labels = [], []
    for slot in draw.pick(_FRAMES).split():
        name = slot.strip("{}")
        words.append(chosen.get(name, slot))
        labels.append(name.rstrip("2") if name in chosen else "other")
    return words, labels
