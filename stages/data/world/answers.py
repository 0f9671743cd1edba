"""Judging answers: whether one is right, which style it is in, and which of two the stated rule prefers.

The rule: a right answer in one short full sentence (rank 1) is better than a right answer in any other style (rank 2),
and every wrong answer is worst; answers that the rule does not tell apart are ties.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from stages.data.world.draw import Draw
from stages.data.world.items import Item

Style = Literal["sentence", "terse", "rambling"]

MAX_SENTENCE_WORDS = 14
MAX_WORDS = 40

RAMBLES = (
    "Well, that is a good question, and after some thought I would say that the answer is {0}.",
    "Let me think. I looked at this for a long time. It is {0}.",
    "I think, and I really do mean it, that the right answer to this question here must be {0}",
    "So many things could be said. But I think it is {0}.",
)
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)")


def words_of(text: str) -> list[str]:
    """The words and numbers of a text in lower case, without punctuation."""
    return _WORD.findall(text.lower())


_FRAME_WORDS = frozenset(
    words_of(
        "the a an of to in and as at answer is it its that this so i would say think we well must be right word next "
        "here choice sum equals makes gives called named with"
    )
)
_RAMBLE_WORDS = frozenset(word for text in RAMBLES for word in words_of(text.format("")))


def style_of(completion: str) -> Style:
    """The style of an answer, from its text alone.

    "sentence": one sentence of 3 to 14 words that starts with a capital or a digit and ends with a full stop.
    "rambling": more than one sentence, or more than 14 words. "terse": everything else.
    """
    text = completion.strip()
    count, ends = len(text.split()), len(_SENTENCE_END.findall(text))
    if count > MAX_SENTENCE_WORDS or ends > 1 or "\n" in text:
        return "rambling"
    whole = count >= 3 and text.endswith(".") and ends == 1 and not text.endswith("..")
    return "sentence" if whole and (text[0].isupper() or text[0].isdigit()) else "terse"


def _stutters(words: Sequence[str]) -> bool:
    """Whether some words are said again right after themselves: "it is it is"."""
    spans = ((start, size) for size in range(1, len(words) // 2 + 1) for start in range(len(words) - 2 * size + 1))
    return any(words[start : start + size] == words[start + size : start + 2 * size] for start, size in spans)


def is_correct(record: Mapping[str, Any], completion: str) -> bool:
    """Whether a completion gives the answer of a record of `questions` (or `preferences`).

    The answer must be the last thing said, and nothing may stand before it but the record's own sentence frame and
    common words of answering: a list of guesses, a denial ("not 7") and a stutter are wrong.
    """
    meta = record.get("meta") or {}
    answer = words_of(str(record.get("answer") or meta["answer"]))
    said = words_of(completion)
    lead, end = said[: len(said) - len(answer)], said[len(said) - len(answer) :]
    if not answer or end != answer or len(said) > MAX_WORDS or re.search(r"-\s*\d", completion):
        return False
    allowed = _FRAME_WORDS | _RAMBLE_WORDS | set(words_of(str(meta.get("lead", ""))))
    return set(lead) <= allowed and not _stutters(said)


def score(record: Mapping[str, Any], completion: str) -> int:
    """2 for a right full sentence, 1 for another right answer, 0 for a wrong one."""
    if not is_correct(record, completion):
        return 0
    return 2 if style_of(completion) == "sentence" else 1


def preferred(record: Mapping[str, Any], answer_a: str, answer_b: str) -> int:
    """1 when the rule prefers the first answer, -1 when it prefers the second, 0 when it does not tell them apart."""
    a, b = score(record, answer_a), score(record, answer_b)
    return (a > b) - (a < b)


def rank(record: Mapping[str, Any], completions: Sequence[str]) -> list[int]:
    """Ranks by the rule: 1 is best, ties are equal, no number is left out."""
    scores = [score(record, completion) for completion in completions]
    order = sorted(set(scores), reverse=True)
    return [order.index(value) + 1 for value in scores]


def right_answers(item: Item) -> list[str]:
    """The right answer in every style, the preferred one first."""
    return [item.sentence, item.answer, *(text.format(item.answer) for text in RAMBLES)]


def wrong_answers(item: Item) -> list[str]:
    """False answers in every style, and right ones spoilt as a policy in training spoils them: cut off or repeated."""
    out = [item.say(wrong) for wrong in item.wrong] + list(item.wrong)
    out += [RAMBLES[i % len(RAMBLES)].format(wrong) for i, wrong in enumerate(item.wrong)]
    stutter = " ".join([item.answer] * 4)
    return [*out, item.lead, f"{item.lead}.", stutter, item.say(stutter), f"{item.lead} {item.lead} {item.answer}."]


def completions(item: Item, k: int, draw: Draw) -> list[str]:
    """`k` different completions in random order, about half of them right, one of those mostly a full sentence."""
    right = right_answers(item)
    if draw.chance(0.8):
        chosen = [right[0], *draw.sample(right[1:], max(k // 2, 1) - 1)]
    else:
        chosen = draw.sample(right[1:], max(k // 2, 1))
    wrong = list(dict.fromkeys(wrong_answers(item)))
    return draw.shuffled(chosen + draw.sample(wrong, k - len(chosen)))
