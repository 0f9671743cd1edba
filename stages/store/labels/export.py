"""Rankings written for other programs, one line or row at a time, with a warning for what a format cannot carry.

    kway        our preference records as JSON lines: K completions, ties, scores, annotator; nothing is lost
    csv         a row a completion, with the number of its ranking; nothing is lost
    trl         TRL's preference type, conversational, explicit prompt: prompt, chosen, rejected
    trl-implicit  the same with the prompt within chosen and rejected
    trl-text    the same as plain text, for prompts of one user turn
    hh          Anthropic's HH-RLHF: two transcripts, chosen and rejected

The pairwise formats take every pair that is not tied. Sources: TRL's documentation of dataset formats; Bai et al.,
Training a Helpful and Harmless Assistant (arXiv 2204.05862) and its published files.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import msgspec

from stages.store.records import Message, PreferenceRecord

Format = Literal["kway", "csv", "trl", "trl-implicit", "trl-text", "hh"]

FORMATS: tuple[Format, ...] = ("kway", "csv", "trl", "trl-implicit", "trl-text", "hh")

CSV_COLUMNS = ("ranking", "messages", "completion", "rank", "score", "annotator", "source", "meta")

SPEAKERS = {"user": "Human", "assistant": "Assistant"}
TURN = re.compile(r"\n\n(?:Human|Assistant):")


def export(records: Iterable[PreferenceRecord], form: Format, lost: Counter[str]) -> Iterator[str]:
    """The lines of a file in this format, newlines included. `lost` counts, by sentence, what could not be carried."""
    if form == "kway":
        yield from (msgspec.json.encode(record).decode() + "\n" for record in records)
    elif form == "csv":
        yield from _csv(records)
    else:
        pair = _PAIRS[form]
        for record in records:
            for best, worst in _pairs(record, lost):
                row = pair(record.messages, best, worst, lost)
                if row is not None:
                    yield msgspec.json.encode(row).decode() + "\n"


def _csv(records: Iterable[PreferenceRecord]) -> Iterator[str]:
    yield _row(CSV_COLUMNS)
    for number, record in enumerate(records):
        messages, meta = (msgspec.json.encode(value).decode() for value in (record.messages, record.meta))
        scores: list[float] | list[None] = record.scores or [None] * len(record.completions)
        for text, rank, score in zip(record.completions, record.ranks, scores, strict=True):
            shown = "" if score is None else score
            yield _row((number, messages, text, rank, shown, record.annotator, record.source, meta))


def _row(values: Iterable[Any]) -> str:
    out = io.StringIO()
    csv.writer(out).writerow(values)  # its \r\n line endings have it quote either of the two within a field
    return out.getvalue()


def _pairs(record: PreferenceRecord, lost: Counter[str]) -> Iterator[tuple[str, str]]:
    ranked = list(zip(record.ranks, record.completions, strict=True))
    if len(ranked) > 2:
        lost["rankings of more than two completions became pairs"] += 1
    if record.scores is not None:
        lost["rankings lost their scores"] += 1
    for place, (rank, text) in enumerate(ranked):
        for other_rank, other in ranked[place + 1 :]:
            if rank == other_rank:
                lost["ties were left out"] += 1
            else:
                yield (text, other) if rank < other_rank else (other, text)


def _explicit(messages: list[Message], best: str, worst: str, lost: Counter[str]) -> dict[str, Any] | None:
    return {"prompt": messages, "chosen": [_answer(best)], "rejected": [_answer(worst)]}


def _implicit(messages: list[Message], best: str, worst: str, lost: Counter[str]) -> dict[str, Any] | None:
    return {"chosen": [*messages, _answer(best)], "rejected": [*messages, _answer(worst)]}


def _text(messages: list[Message], best: str, worst: str, lost: Counter[str]) -> dict[str, Any] | None:
    if len(messages) != 1 or messages[0].role != "user":
        lost["pairs whose prompt is not one user turn were left out"] += 1
        return None
    return {"prompt": messages[0].content, "chosen": best, "rejected": worst}


def _hh(messages: list[Message], best: str, worst: str, lost: Counter[str]) -> dict[str, Any] | None:
    if any(message.role not in SPEAKERS for message in messages):
        lost["pairs with a system or tool turn were left out"] += 1
        return None
    asked = [message.content for message in messages]
    first_best, first_worst = (TURN.split(text)[0].strip() for text in (best, worst))
    if any(TURN.search(text) for text in asked) or first_best == first_worst:
        lost["pairs that would not be told apart in a transcript were left out"] += 1
        return None
    if any(text != text.strip() for text in (*asked, best, worst)):
        lost["spaces around a text will not be read back"] += 1
    prompt = "".join(f"\n\n{SPEAKERS[message.role]}: {message.content}" for message in messages)
    return {"chosen": f"{prompt}\n\nAssistant: {best}", "rejected": f"{prompt}\n\nAssistant: {worst}"}


def _answer(text: str) -> Message:
    return Message("assistant", text)


_PAIRS: dict[str, Callable[[list[Message], str, str, Counter[str]], dict[str, Any] | None]] = {
    "trl": _explicit,
    "trl-implicit": _implicit,
    "trl-text": _text,
    "hh": _hh,
}
