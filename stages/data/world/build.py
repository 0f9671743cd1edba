"""The world's records: pre-training text, conversations, questions in four parts, and ranked completions."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from stages.data.world.answers import completions, rank, style_of
from stages.data.world.draw import Draw
from stages.data.world.items import Item, Part, Record, messages, meta, part_of
from stages.data.world.knowledge import (
    fact_items,
    facts,
    opposite_items,
    opposites,
    sum_items,
    training_pairs,
    upper_first,
)
from stages.data.world.lexicon import KINDS
from stages.data.world.situations import DRAWN

WORLD_VERSION = 1
DOCUMENTS = 8_000
PREFERRED_SHARE = 0.4
TWO_TURN_SHARE = 0.1
# Questions of each drawn family by part.
DRAWN_COUNTS: dict[Part, int] = {"sft": 1_500, "reward": 400, "policy": 400, "eval": 150}
# Documents of each sort, in percent.
DOCUMENT_SHARES = {
    "facts": 21,
    "opposites": 7,
    "sums": 28,
    "context": 9,
    "stories": 9,
    "few_shot": 4,
    "entailment": 13,
    "choice": 9,
}


class Family(NamedTuple):
    """A family of questions. A family that is not learnable is reported apart and is in no target."""

    name: str
    description: str
    learnable: bool
    held_out: str


def families() -> tuple[Family, ...]:
    """Every family of the world, known from the start because later figures hang on it."""
    return (
        Family(
            "facts", "A fact about an invented or a real thing.", True, "A fact in a phrasing it was never asked in."
        ),
        Family("opposites", "The opposite of a word.", True, "A word in a phrasing it was never asked in."),
        Family("sums", "The sum of two numbers from 0 to 49.", True, "A pair of operands, in both orders."),
        Family("context", "A question that only the given context answers.", True, "A context."),
        Family("stories", "A question about a short story that is given.", True, "A story."),
        Family("few_shot", "A list to go on with; its examples say what is asked.", True, "Examples with their query."),
        Family(
            "entailment", "Whether a hypothesis follows from a premise.", True, "A premise together with a hypothesis."
        ),
        Family("choice", "Which of three options is of a given kind.", True, "A set of options."),
        Family("unasked_facts", "A fact stated in pre-training and never asked about.", False, "Every question."),
    )


@cache
def _drawn(family: str, part: Part) -> tuple[Item, ...]:
    draw, out = Draw("questions", WORLD_VERSION, family, part), dict[str, Item]()
    while len(out) < DRAWN_COUNTS[part]:
        item = DRAWN[family](draw)
        if part_of(item) == part:
            out.setdefault(item.prompt, item)
    return tuple(out.values())


@cache
def items(part: Part) -> tuple[Item, ...]:
    """Every question of a part, family by family."""
    tables = (fact_items(), opposite_items(), sum_items())
    fixed = [item for table in tables for item in table if part_of(item) == part]
    return tuple(fixed + [item for family in DRAWN for item in _drawn(family, part)])


def styled(item: Item, draw: Draw) -> str:
    """The right answer in one of the two styles of SFT, the preferred one in 40 % of cases."""
    return item.sentence if draw.chance(PREFERRED_SHARE) else item.answer


def _asked(item: Item, draw: Draw) -> str:
    return f"Question: {item.prompt}\nAnswer: {styled(item, draw)}"


def training_item(family: str, draw: Draw) -> Item:
    """A new item of a drawn family that training may show."""
    while part_of(item := DRAWN[family](draw)) != "sft":
        pass
    return item


@cache
def _by_lead(family: str) -> dict[str, list[Item]]:
    out: dict[str, list[Item]] = {}
    for item in fact_items() if family == "facts" else opposite_items():
        if part_of(item) == "sft":
            out.setdefault(item.lead, []).append(item)
    return out


def _fact_document(family: str, draw: Draw) -> str:
    """Some facts, each stated and, where training asks about it, sometimes asked."""
    table = facts() if family == "facts" else opposites()
    chosen = draw.sample(table, 4)
    if family == "facts" and draw.chance(0.5):
        subject = draw.pick(table).subject
        chosen = draw.shuffled([fact for fact in table if fact.subject == subject])
    lines = [" ".join(draw.pick(fact.statements) for fact in chosen)]
    asked = [item for fact in chosen if (item := question_about(fact.lead, family, draw)) is not None]
    return "\n".join(lines + [_asked(item, draw) for item in asked[:2]])


def question_about(lead: str, family: str, draw: Draw) -> Item | None:
    known = _by_lead(family).get(lead)
    return draw.pick(known) if known else None


@cache
def _training_sums() -> tuple[Item, ...]:
    return tuple(item for item in sum_items() if part_of(item) == "sft")


def _sum_document(draw: Draw) -> str:
    """Sums as lines of text, and one as a question."""
    frame = draw.pick(("{a} plus {b} is {c}.", "{a} + {b} = {c}"))
    pairs = [draw.pick(training_pairs()) for _ in range(6)]
    lines = [frame.format(a=a, b=b, c=a + b) for a, b in pairs]
    return "\n".join([*lines, *(_asked(draw.pick(_training_sums()), draw) for _ in range(2))])


def _kinds_document(draw: Draw) -> str:
    """Some words, each with its kind, and a choice."""
    kinds = [draw.pick(sorted(KINDS)) for _ in range(5)]
    lines = [f"{upper_first(draw.pick(KINDS[kind]))} is a kind of {kind}." for kind in kinds]
    return "\n".join([" ".join(lines), _asked(training_item("choice", draw), draw)])


def _drawn_document(family: str, draw: Draw) -> str:
    if family == "choice" and draw.chance(0.4):
        return _kinds_document(draw)
    item = training_item(family, draw)
    if family == "few_shot" and draw.chance(0.5):
        return f"{item.context} {item.answer}"
    if family == "stories" and draw.chance(0.3):
        return item.context
    return "\n".join([_asked(item, draw)] + [_asked(training_item(family, draw), draw) for _ in range(2)])


def _document(sort: str, draw: Draw) -> str:
    if sort in ("facts", "opposites"):
        return _fact_document(sort, draw)
    return _sum_document(draw) if sort == "sums" else _drawn_document(sort, draw)


def pretraining_documents(seed: int = 0, size: int = DOCUMENTS) -> Iterator[Record]:
    """`size` different documents of kind text (about 240 bytes each): statements, stories, lists and plain questions.

    They show nothing that is held out and no prompt of the reward and policy parts. Facts of the family `unasked_facts`
    are stated here and asked nowhere.
    """
    draw, seen = Draw("pretraining", WORLD_VERSION, seed), set[str]()
    bag = [sort for sort, share in DOCUMENT_SHARES.items() for _ in range(share)]
    while len(seen) < size:
        sort = draw.pick(bag)
        text = _document(sort, draw)
        if text not in seen:
            seen.add(text)
            yield {"text": text, "source": "world", "meta": {"family": sort, "part": "sft"}}


def questions(part: Part) -> Iterator[Record]:
    """Every question of a part, as records of kind prompts with `answer`.

    No prompt is in two parts; `eval` holds the held-out items, and the unasked facts, which are in no other part.
    """
    for item in items(part):
        yield {"messages": messages(item), "answer": item.answer, "meta": meta(item)}


def _turn(item: Item, draw: Draw) -> list[dict[str, str]]:
    return [*messages(item), {"role": "assistant", "content": styled(item, draw)}]


def conversations(part: Part = "sft", seed: int = 0) -> Iterator[Record]:
    """Every question of a part once, in random order, with its right answer, as records of kind chat.

    Four answers in ten are in the preferred style, chosen by the seed. One conversation in ten goes on with a second
    question, which is then asked once more than the others.
    """
    draw = Draw("conversations", WORLD_VERSION, part, seed)
    every = items(part)
    for item in draw.shuffled(every):
        turns = _turn(item, draw)
        if draw.chance(TWO_TURN_SHARE):
            turns += _turn(draw.pick(every), draw)
        yield {"messages": turns, "meta": meta(item) | {"style": style_of(turns[1]["content"])}}


def preferences(part: Part, n: int, k: int = 4, seed: int = 0, flipped: float = 0.0) -> Iterator[Record]:
    """`n` prompts of a part, each with `k` (2 to 9) completions ranked by the rule, as records of kind preference.

    The prompts come in random order, each once before any comes again. Right and wrong answers of every style appear,
    and answers that are cut off or stutter. A share of the rankings is `flipped`, which their meta says: the worst is
    called best and so on. Raises ValueError when `k` is out of range.
    """
    if not 2 <= k <= 9:
        raise ValueError(f"k is {k}; a prompt takes 2 to 9 completions to rank")
    draw, order = Draw("preferences", WORLD_VERSION, part, k, seed), list[Item]()
    careless = Draw("flips", WORLD_VERSION, part, k, seed)
    for _ in range(n):
        order = order or draw.shuffled(items(part))
        item = order.pop()
        texts = completions(item, k, draw)
        record: Record = {"messages": messages(item), "completions": texts, "annotator": "rule", "source": "world"}
        record["meta"] = meta(item)
        ranks = rank(record, texts)
        if careless.chance(flipped):
            ranks = [max(ranks) + 1 - place for place in ranks]
            record["meta"] |= {"flipped": True}
        yield record | {"ranks": ranks}
