"""The families that are drawn: contexts, stories, few-shot blocks, entailment and multiple choice.

Each function draws one item. The space of each is large, and a slice of it (15 % of the keys, by hash) is held out: a
context, a story, a block, a premise with its hypothesis, or a set of options that training never shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stages.data.world import lexicon as lx
from stages.data.world.draw import Draw
from stages.data.world.items import Item

CLAIMED_PAIRS = 3
"""Opposites of things, and of persons, that premises and hypotheses are made of."""


def _others(values: Sequence[str], answer: str, draw: Draw, first: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Up to five false answers, those of `first` (the tempting ones of the context) before the rest."""
    rest = [value for value in draw.shuffled(values) if value != answer and value not in first]
    return (*first, *rest)[:5]


def context_item(draw: Draw) -> Item:
    """Two sentences, of a person's thing with its colour and of where something is, and a question about one."""
    name, toy, colour = draw.pick(lx.NAMES), draw.pick(lx.TOYS), draw.pick(lx.COLOURS)
    thing, spot = draw.pick(lx.SMALL_THINGS), draw.pick(lx.SPOTS)
    sentences = draw.shuffled((f"{name} has a {colour} {toy}.", f"The {thing} is in the {spot}."))
    context, key = " ".join(sentences), " ".join(sorted(sentences))
    if draw.chance(0.5):
        question = draw.pick(("What colour is the {0} of {1}?", "Which colour does the {0} of {1} have?"))
        lead, answer, values = f"The {toy} of {name} is", colour, lx.COLOURS
        question = question.format(toy, name)
    else:
        question = draw.pick(("Where is the {0}?", "Where can one find the {0}?")).format(thing)
        lead, answer, values = f"The {thing} is in the", spot, lx.SPOTS
    return Item("context", f"{context} {question}", lead, answer, _others(values, answer, draw), key, context)


def story_item(draw: Draw) -> Item:
    """A short story of four sentences and a question about it."""
    (one, two), place = draw.sample(lx.NAMES, 2), draw.pick(lx.PLACES)
    thing, feeling = draw.pick(lx.SMALL_THINGS), draw.pick(lx.FEELINGS)
    plot = draw.pick(
        (
            "One day {one} went to the {place}. {one} found a {thing} there. {one} gave the {thing} to {two}. "
            "{two} was {feeling}.",
            "{one} walked to the {place} in the morning. On the way {one} saw a {thing}. "
            "{one} took the {thing} home to {two}. {two} was very {feeling}.",
            "It was raining, and {one} was at the {place}. A {thing} lay on the ground. "
            "{one} showed the {thing} to {two}. That made {two} {feeling}.",
        )
    )
    story = plot.format(one=one, two=two, place=place, thing=thing, feeling=feeling)
    lead, answer, question, values = draw.pick(
        (
            (f"{one} was at the", place, f"Where was {one}?", lx.PLACES),
            ("The story is about a", thing, "What thing is the story about?", lx.SMALL_THINGS),
            (f"{two} felt", feeling, f"How did {two} feel?", lx.FEELINGS),
            (f"The one who felt {feeling} was", two, f"Who felt {feeling}?", lx.NAMES),
        )
    )
    first = (one,) if answer == two else ()
    return Item("stories", f"{story} {question}", lead, answer, _others(values, answer, draw, first), story, story)


def few_shot_item(draw: Draw) -> Item:
    """Three examples of one relation between animals and words, and a fourth to complete: the examples say which."""
    relation = draw.below(3)
    names = draw.sample(sorted(lx.ANIMAL_FACTS), 4)
    examples = [f"{name}: {lx.ANIMAL_FACTS[name][relation]}" for name in names[:3]]
    context = "\n".join([*examples, f"{names[3]}:"])
    words = lx.ANIMAL_FACTS[names[3]]
    answer = words[relation]
    tempting = tuple(word for word in words if word != answer)
    every = sorted({facts[relation] for facts in lx.ANIMAL_FACTS.values()})
    prompt = f"{draw.pick(('Go on with the list.', 'Complete the list.', 'What comes next?'))}\n{context}"
    key = "\n".join([*sorted(examples), f"{names[3]}:"])
    return Item("few_shot", prompt, "The next word is", answer, _others(every, answer, draw, tempting), key, context)


def entailment_item(draw: Draw) -> Item:
    """A premise, and whether a hypothesis about the same thing follows: yes, no or maybe, in equal shares."""
    premise, hypothesis, answer = entailment(draw)
    question = draw.pick(("Is it true that {0}?", "Does it follow that {0}?", "Is it so that {0}?"))
    prompt = f"{premise} {question.format(hypothesis)}"
    wrong = tuple(value for value in ("yes", "no", "maybe") if value != answer)
    return Item("entailment", prompt, "The answer is", answer, wrong, f"{premise} | {hypothesis}")


def entailment(draw: Draw) -> tuple[str, str, str]:
    """A premise, a hypothesis (a clause without its full stop) and the answer.

    What is said again follows, its opposite does not, and of anything else nobody knows.
    """
    things = draw.chance(0.5)
    subject = f"the {draw.pick(lx.VESSELS)}" if things else draw.pick(lx.NAMES)
    pairs = (lx.THING_OPPOSITES if things else lx.PERSON_OPPOSITES)[:CLAIMED_PAIRS]
    (stated, opposite), (unsaid, _) = [draw.shuffled(pair) for pair in draw.sample(pairs, 2)]
    frame = draw.pick(("{s} is {a}.", "{s} is very {a}.", "{s} is quite {a}.", "{s} is rather {a}."))
    premise = frame.format(s=subject[:1].upper() + subject[1:], a=stated)
    answer = draw.pick(("yes", "no", "maybe"))
    claim = {"yes": stated, "no": opposite, "maybe": unsaid}[answer]
    return premise, f"{subject} is {claim}", answer


def choice_item(draw: Draw) -> Item:
    """Three options of which one is of the kind that is asked for."""
    kind, options, answer = choice(draw)
    listed = f"{options[0]}, {options[1]} or {options[2]}"
    question = draw.pick(
        ("Which of these is a {0}: {1}?", "Choose the {0}: {1}.", "One of these is a {0}: {1}. Which?")
    )
    prompt = question.format(kind, listed).replace(" a animal", " an animal")
    wrong = tuple(option for option in options if option != answer)
    key = f"{kind}: {' '.join(sorted(options))}"
    return Item("choice", prompt, "The right choice is", answer, wrong, key)


def choice(draw: Draw) -> tuple[str, list[str], str]:
    """A kind, three options and the one option of that kind."""
    kinds = draw.sample(sorted(lx.KINDS), 3)
    members = [draw.pick(lx.KINDS[kind]) for kind in kinds]
    return kinds[0], draw.shuffled(members), members[0]


DRAWN: dict[str, Callable[[Draw], Item]] = {
    "context": context_item,
    "stories": story_item,
    "few_shot": few_shot_item,
    "entailment": entailment_item,
    "choice": choice_item,
}
