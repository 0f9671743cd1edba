"""The demo's data: a part of the world told in the words of its answers, so that a small model knows it in minutes.

Three families. Facts and opposites are stated as their full-sentence answers state them, and asked; words are told
apart by their kind, and chosen by it. Questions stand as lines, each with its answer, in one of the two styles of SFT,
on the next. As in `build.pretraining_documents`, nothing that is held out is shown, and no prompt of another part.
"""

from __future__ import annotations

from collections.abc import Iterator

from stages.data.world.answers import style_of
from stages.data.world.build import (
    WORLD_VERSION,
    items,
    question_about,
    styled,
    training_item,
)
from stages.data.world.draw import Draw
from stages.data.world.items import Item, Record, messages, meta
from stages.data.world.knowledge import facts, opposites, upper_first
from stages.data.world.lexicon import KINDS

FAMILIES = ("facts", "opposites", "choice")
LESSONS = 16_000
SHARES = {"facts": 42, "opposites": 15, "kinds": 11, "choice": 32}
"""Documents of each sort, in percent."""
MORE_CHOICES = 3_000
"""Choices of the conversations beside the world's questions: few would be learnt by heart, many are by their rule."""
CHAT_PREFERRED_SHARE = 0.47
"""Of the conversations' answers, those in the preferred style; of greedy answers four to five in ten then are."""
STATED, CHOSEN, ASKED = 4, 4, 2
"""Statements, or choices, of a document, and questions after the statements."""


def lesson_documents(seed: int = 0, size: int = LESSONS) -> Iterator[Record]:
    """`size` different documents of kind text, about 180 bytes each."""
    draw, seen = Draw("lessons", WORLD_VERSION, seed), set[str]()
    bag = [sort for sort, share in SHARES.items() for _ in range(share)]
    while len(seen) < size:
        sort = draw.pick(bag)
        text = "\n".join(_lines(sort, draw))
        if text not in seen:
            seen.add(text)
            family = "choice" if sort == "kinds" else sort
            yield {"text": text, "source": "world", "meta": {"family": family, "part": "sft"}}


def lesson_conversations(seed: int = 0) -> Iterator[Record]:
    """Every question of the sft part about these families once, and more choices, with right answers, as kind chat.

    The question does not tell the style: of each fact's six questions two or three, of choices 47 in a hundred, chosen
    by the seed, are answered in the preferred one. So every fact is answered in both.
    """
    draw, by_lead = Draw("lesson conversations", WORLD_VERSION, seed), dict[str, list[Item]]()
    asked = {item.prompt: item for item in items("sft") if item.family in FAMILIES}
    wanted = len(asked) + MORE_CHOICES
    while len(asked) < wanted:
        item = training_item("choice", draw)
        asked.setdefault(item.prompt, item)
    for item in asked.values():
        by_lead.setdefault(item.lead, []).append(item)
    answered: list[tuple[Item, str]] = []
    for group in by_lead.values():
        preferred = int(CHAT_PREFERRED_SHARE * len(group) + draw.below(1_000) / 1_000)
        for place, item in enumerate(draw.shuffled(group)):
            answered.append((item, item.sentence if place < preferred else item.answer))
    for item, answer in draw.shuffled(answered):
        turns = [*messages(item), {"role": "assistant", "content": answer}]
        yield {"messages": turns, "meta": meta(item) | {"style": style_of(answer)}}


def _lines(sort: str, draw: Draw) -> list[str]:
    if sort in ("facts", "opposites"):
        return _statements(sort, draw)
    if sort == "kinds":
        kinds = [draw.pick(sorted(KINDS)) for _ in range(STATED)]
        stated = [f"{upper_first(draw.pick(KINDS[kind]))} is a kind of {kind}." for kind in kinds]
        return stated + _choices(ASKED, draw)
    return _choices(CHOSEN, draw)


def _statements(family: str, draw: Draw) -> list[str]:
    """Facts, half of the time all about one thing, and questions about some of them."""
    table = facts() if family == "facts" else opposites()
    chosen = draw.sample(table, STATED)
    if family == "facts" and draw.chance(0.5):
        subject = draw.pick(table).subject
        chosen = draw.shuffled([fact for fact in table if fact.subject == subject])
    asked = [item for fact in chosen if (item := question_about(fact.lead, family, draw)) is not None]
    return [fact.statements[0] for fact in chosen] + [line for item in asked[:ASKED] for line in _asked(item, draw)]


def _choices(count: int, draw: Draw) -> list[str]:
    return [line for _ in range(count) for line in _asked(training_item("choice", draw), draw)]


def _asked(item: Item, draw: Draw) -> list[str]:
    return [item.prompt, styled(item, draw)]
