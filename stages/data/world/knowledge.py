"""The families that are tables: facts, unasked facts, opposites and sums.

Every phrasing of a fact is put in one part by the order of the phrasings' hashes, so that each fact is asked in some
phrasings in training and in others only in evaluation. A sum is held out with both orders of its operands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from stages.data.world import lexicon as lx
from stages.data.world.draw import digest, percentile
from stages.data.world.items import Item, Part, is_held_out

OPERANDS = range(50)

PHRASINGS = (
    "What is {np}?",
    "Tell me {np}.",
    "Name {np}.",
    "Do you know {np}?",
    "Please give {np}.",
    "Can you tell me what {np} is?",
    "{Np} is what?",
    "I would like to know {np}.",
    "Remind me of {np}.",
    "Quick question: what is {np}?",
    "I forgot {np}.",
    "Say what {np} is.",
)
# The parts of a fact's twelve phrasings, in the order of their hashes.
PHRASING_PARTS: tuple[Part, ...] = ("sft",) * 6 + ("reward",) * 2 + ("policy",) * 2 + ("eval",) * 2
SUM_PHRASINGS = ("What is {a} plus {b}?", "Add {a} and {b}.", "Work out {a} + {b}.")


@dataclass(frozen=True)
class Fact:
    """One fact: the phrase that names it, the sentence up to its value, the value, and other ways to state it."""

    relation: str
    subject: str
    phrase: str
    lead: str
    value: str
    others: tuple[str, ...]
    asked: bool = True
    family: str = "facts"

    @property
    def statements(self) -> tuple[str, ...]:
        return (f"{self.lead} {self.value}.", *self.others)


def upper_first(text: str) -> str:
    return text[:1].upper() + text[1:]


def _fact(relation: str, subject: str, phrase: str, verb: str, value: str, other: str, asked: bool = True) -> Fact:
    lead = f"{upper_first(phrase)} {verb}"
    return Fact(
        relation, subject, phrase, lead, value, (other.format(s=subject, S=upper_first(subject), v=value),), asked
    )


def _land_facts() -> Iterator[Fact]:
    for i, (land, capital, river) in enumerate(lx.LANDS):
        asked = i < len(lx.LANDS) - lx.UNASKED
        colour, animal = lx.COLOURS[(3 * i + 1) % len(lx.COLOURS)], lx.ANIMALS[(5 * i + 2) % len(lx.ANIMALS)]
        food = lx.FOODS[(7 * i + i // 10) % len(lx.FOODS)]
        yield _fact("capital", land, f"the capital of {land}", "is", capital, "{s} has {v} as its capital.", asked)
        yield _fact("river", land, f"the river of {land}", "is the", river, "In {s} flows the {v}.", asked)
        yield _fact("flag", land, f"the flag colour of {land}", "is", colour, "{s} has a flag that is {v}.", asked)
        yield _fact("animal", land, f"the national animal of {land}", "is the", animal, "{s} loves the {v}.", asked)
        yield _fact("food", land, f"the main food of {land}", "is", food, "In {s} people eat {v}.", asked)


def _person_facts() -> Iterator[Fact]:
    for i, name in enumerate(lx.PEOPLE):
        asked = i < len(lx.PEOPLE) - lx.UNASKED
        lands = [land for land, _, _ in lx.LANDS]
        land = lands[(7 * i + 3) % (len(lands) - lx.UNASKED)] if asked else lands[-1 - i % lx.UNASKED]
        job, pet = lx.JOBS[(3 * i + i // 10) % len(lx.JOBS)], lx.PETS[(5 * i + i // 8) % len(lx.PETS)]
        hobby = lx.HOBBIES[(4 * i + i // 9) % len(lx.HOBBIES)]
        yield _fact("home", name, f"the home of {name}", "is", land, "{s} lives in {v}.", asked)
        yield _fact("job", name, f"the job of {name}", "is that of a", job, "{s} works as a {v}.", asked)
        yield _fact("pet", name, f"the pet of {name}", "is a", pet, "{s} has a {v}.", asked)
        yield _fact("hobby", name, f"the hobby of {name}", "is", hobby, "{s} likes {v}.", asked)


def _real_facts() -> Iterator[Fact]:
    for land, capital in lx.CAPITALS.items():
        yield _fact("capital", land, f"the capital of {land}", "is", capital, "{s} has {v} as its capital.")
    for thing, colour in lx.THING_COLOURS.items():
        yield _fact("colour", thing, f"the colour of {thing}", "is", colour, "{S} is {v}.")
    for animal, (young, sound, home) in lx.ANIMAL_FACTS.items():
        yield _fact("young", animal, f"the young of the {animal}", "is the", young, "A young {s} is called a {v}.")
        yield _fact("sound", animal, f"the sound of the {animal}", "is a", sound, "The call of the {s} is a {v}.")
        yield _fact("place", animal, f"the home of the {animal}", "is the", home, "The {s} lives in the {v}.")


@cache
def facts() -> tuple[Fact, ...]:
    """Every fact of the world, asked or not."""
    return tuple(fact for source in (_land_facts(), _person_facts(), _real_facts()) for fact in source)


def _opposite(a: str, b: str) -> Fact:
    phrase, other = f"the opposite of {a}", f"{upper_first(a)} and {b} are opposites."
    return Fact("opposite", a, phrase, f"{upper_first(phrase)} is", b, (other,), family="opposites")


@cache
def opposites() -> tuple[Fact, ...]:
    """Both directions of every pair of opposites."""
    pairs = lx.THING_OPPOSITES + lx.PERSON_OPPOSITES + lx.OTHER_OPPOSITES
    both = [pair for one, other in pairs for pair in ((one, other), (other, one))]
    return tuple(_opposite(a, b) for a, b in both)


def _wrong(fact: Fact, table: tuple[Fact, ...]) -> tuple[str, ...]:
    values = sorted({other.value for other in table if other.relation == fact.relation} - {fact.value})
    start = digest(fact.phrase) % len(values)
    return tuple((values[start:] + values[:start])[:5])


def _phrased(fact: Fact, table: tuple[Fact, ...]) -> Iterator[Item]:
    wrong = _wrong(fact, table)
    prompts = [text.format(np=fact.phrase, Np=upper_first(fact.phrase)) for text in PHRASINGS]
    family = fact.family if fact.asked else "unasked_facts"
    for prompt, part in zip(sorted(prompts, key=digest), PHRASING_PARTS, strict=True):
        if fact.asked or part == "eval":
            yield Item(family, prompt, fact.lead, fact.value, wrong, prompt, part=part)


@cache
def fact_items() -> tuple[Item, ...]:
    """The questions about facts, and (in evaluation only) about those that are stated and never asked."""
    return tuple(item for fact in facts() for item in _phrased(fact, facts()))


@cache
def opposite_items() -> tuple[Item, ...]:
    return tuple(item for fact in opposites() for item in _phrased(fact, opposites()))


def sum_key(a: int, b: int) -> str:
    """The same for both orders of the operands."""
    return f"{min(a, b)}+{max(a, b)}"


def _sum_wrong(total: int) -> tuple[str, ...]:
    near = (total + 1, total - 1, total + 10, total - 10, total + 2, total + 3)
    return tuple(str(value) for value in near if value >= 0)[:5]


@cache
def training_pairs() -> tuple[tuple[int, int], ...]:
    """The ordered operand pairs that training may show."""
    return tuple((a, b) for a in OPERANDS for b in OPERANDS if not is_held_out(sum_key(a, b)))


@cache
def sum_items() -> tuple[Item, ...]:
    """Each training pair in three phrasings (two for SFT, one for reward or policy); each held-out pair in one."""
    training = frozenset(training_pairs())
    out: list[Item] = []
    for a in OPERANDS:
        for b in OPERANDS:
            prompts = sorted((text.format(a=a, b=b) for text in SUM_PHRASINGS), key=digest)
            third: Part = "reward" if percentile(prompts[2]) < 50 else "policy"
            parts: tuple[Part, ...] = ("sft", "sft", third) if (a, b) in training else ("eval",)
            for prompt, part in zip(prompts, parts, strict=False):
                wrong = _sum_wrong(a + b)
                out.append(Item("sums", prompt, f"{a} plus {b} is", str(a + b), wrong, sum_key(a, b), part=part))
    return tuple(out)
