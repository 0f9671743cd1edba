"""One thing that can be asked, whatever its family, and the part of the world it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from stages.data.world.draw import percentile

Part = Literal["sft", "reward", "policy", "eval"]
Record = dict[str, Any]

PARTS: tuple[Part, ...] = ("sft", "reward", "policy", "eval")
HELD_OUT_PERCENT = 15


@dataclass(frozen=True)
class Item:
    """A question with its answer.

    The full sentence is always `lead`, the answer and a full stop, so the answer stands last in it. `key` is what is
    held out (a context, a pair of operands, a fact with its phrasing); `wrong` are answers of the right type that are
    false; `part` is None until the split by hash decides it.
    """

    family: str
    prompt: str
    lead: str
    answer: str
    wrong: tuple[str, ...]
    key: str
    context: str = ""
    part: Part | None = None

    @property
    def sentence(self) -> str:
        return self.say(self.answer)

    def say(self, answer: str) -> str:
        """The full sentence with this answer, right or wrong."""
        return f"{self.lead} {answer}."


def is_held_out(key: str) -> bool:
    """Whether a context, a pair or a combination is kept for evaluation only."""
    return percentile(f"held out: {key}") < HELD_OUT_PERCENT


def part_of(item: Item) -> Part:
    """The one part that holds this prompt: evaluation by its key, the others by the prompt itself (80 / 10 / 10 %)."""
    if item.part is not None:
        return item.part
    if is_held_out(item.key):
        return "eval"
    place = percentile(f"part: {item.prompt}")
    return "sft" if place < 80 else "reward" if place < 90 else "policy"


def messages(item: Item) -> list[dict[str, str]]:
    return [{"role": "user", "content": item.prompt}]


def meta(item: Item) -> dict[str, Any]:
    """What every record of the world carries; `lead` and `answer` are what judging a completion needs."""
    part = part_of(item)
    return {
        "family": item.family,
        "part": part,
        "held_out": part == "eval",
        "answer": item.answer,
        "lead": item.lead,
    }
