"""Preferences: pairs, ratings and rankings, as the files of the field hold them."""

from __future__ import annotations

import math
import re
from typing import Any

from stages.data.shapes.base import Fields, Row, Shape, Unfit, has_text, is_texts, text_of, texts_of
from stages.data.shapes.turns import as_prompt, is_turns, read_one_answer, read_turns
from stages.store.records import Message, PreferenceRecord, Record

PROMPTS = ("prompt", "instruction", "question", "query", "input")
SPEAKERS = re.compile(r"(?:\A|\n\n)(Human|Assistant): ?")
"""Where a turn of an HH-RLHF transcript begins."""


def pair(messages: list[Message], chosen: str, rejected: str, scores: list[float] | None = None) -> PreferenceRecord:
    """Two completions, the first preferred."""
    return PreferenceRecord(messages=messages, completions=[chosen, rejected], ranks=[1, 2], scores=scores)


def ranked(messages: list[Message], completions: list[str], scores: list[float]) -> PreferenceRecord:
    """Rated completions, the highest rating first in rank; equal ratings are ties."""
    ranks = [1 + sum(other > score for other in scores) for score in scores]
    return PreferenceRecord(messages=messages, completions=completions, ranks=ranks, scores=scores)


def _is_canonical(row: Row) -> bool:
    return is_turns(row.get("messages")) and is_texts(row.get("completions")) and isinstance(row.get("ranks"), list)


def _read_canonical(fields: Fields) -> list[Record]:
    messages, completions = read_turns(fields.needed("messages"), "messages"), fields.needed("completions")
    texts, ranks, scores = texts_of(completions, "completions"), fields.needed("ranks"), fields.take("scores")
    if scores is not None:
        scores = [number_of(score, f"scores[{n}]") for n, score in enumerate(scores)]
    return [canonical(messages, texts, ranks, scores, fields.optional("annotator"))]


def canonical(
    messages: list[Message], completions: list[str], ranks: list[int], scores: list[float] | None, annotator: str
) -> PreferenceRecord:
    """A ranking as it stands. Unfit when ranks or scores are not as many as the completions, or no ranks."""
    many = len(completions)
    if len(ranks) != many or not all(type(rank) is int and 0 < rank <= many for rank in ranks):
        raise Unfit("ranks", f"These are not {many} ranks from 1 to {many}.")
    if scores is not None and len(scores) != many:
        raise Unfit("scores", f"These are not {many} scores.")
    return PreferenceRecord(messages=messages, completions=completions, ranks=ranks, scores=scores, annotator=annotator)


def _is_explicit(row: Row) -> bool:
    asked = has_text(row, *PROMPTS) or is_turns(row.get("prompt"))
    return asked and all(has_text(row, side) or is_turns(row.get(side)) for side in ("chosen", "rejected"))


def _read_explicit(fields: Fields) -> list[Record]:
    asked, chosen, rejected = fields.needed(*PROMPTS), fields.needed("chosen"), fields.needed("rejected")
    scores = _pair_scores(fields)
    if isinstance(chosen, list) and isinstance(rejected, list) and len(chosen) > 1 and len(rejected) > 1:
        return [_by_shared_turns(chosen, rejected, scores)]  # the prompt is repeated in both
    system = fields.optional("system", "system_prompt")
    messages = [*([Message("system", system)] if system else []), *as_prompt(asked, "prompt")]
    return [pair(messages, read_one_answer(chosen, "chosen"), read_one_answer(rejected, "rejected"), scores)]


def _is_transcript(row: Row) -> bool:
    sides = (row.get("chosen"), row.get("rejected"))
    return all(isinstance(side, str) and SPEAKERS.match(side) for side in sides)


def _read_transcripts(fields: Fields) -> list[Record]:
    texts = [fields.text(side) for side in ("chosen", "rejected")]
    chosen, rejected = (_transcript(text, side) for text, side in zip(texts, ("chosen", "rejected"), strict=True))
    alike = next((n for n, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), -1)
    if 0 < alike < max(len(chosen), len(rejected)) - 1 and chosen[alike].role == rejected[alike].role == "assistant":
        best, worst = (_from_turn(text, alike) for text in texts)  # they go on apart: that is part of the answer
        return [pair(chosen[:alike], best, worst)]
    return [_shared(chosen, rejected)]


def _from_turn(text: str, turn: int) -> str:
    """A transcript from a turn on, without the name of its first speaker."""
    return text[list(SPEAKERS.finditer(text))[turn].end() :].strip()


def _transcript(text: str, field: str) -> list[Message]:
    """The turns of "\\n\\nHuman: …\\n\\nAssistant: …"."""
    starts = list(SPEAKERS.finditer(text))
    ends = [start.start() for start in starts[1:]] + [len(text)]
    if not starts:
        raise Unfit(field, "There is no Human: or Assistant: in this transcript.")
    return [
        Message("user" if start[1] == "Human" else "assistant", text[start.end() : end].strip())
        for start, end in zip(starts, ends, strict=True)
    ]


def _is_implicit(row: Row) -> bool:
    sides = (row.get("chosen"), row.get("rejected"))
    return all(isinstance(side, str) for side in sides) or all(is_turns(side) for side in sides)


def _read_implicit(fields: Fields) -> list[Record]:
    chosen, rejected = fields.needed("chosen"), fields.needed("rejected")
    if isinstance(chosen, list) or isinstance(rejected, list):
        return [_by_shared_turns(chosen, rejected, _pair_scores(fields))]
    chosen, rejected = text_of(chosen, "chosen"), text_of(rejected, "rejected")
    end = next((n for n, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), None)
    end = min(len(chosen), len(rejected)) if end is None else end
    end -= chosen[end - 1 : end] == " "  # the space belongs to the completions, as in TRL's extract_prompt
    if end <= 0:
        raise Unfit("rejected", "The two do not begin alike, so there is no prompt.")
    return [pair([Message("user", chosen[:end])], chosen[end:], rejected[end:], _pair_scores(fields))]


def _by_shared_turns(chosen: Any, rejected: Any, scores: list[float] | None) -> PreferenceRecord:
    return _shared(read_turns(chosen, "chosen"), read_turns(rejected, "rejected"), scores)


def _shared(chosen: list[Message], rejected: list[Message], scores: list[float] | None = None) -> PreferenceRecord:
    """The turns before the last one, which both share, are the prompt; the last ones are the completions."""
    prompt = chosen[:-1]
    for side, turns in (("chosen", chosen), ("rejected", rejected)):
        if turns[-1].role != "assistant":
            raise Unfit(side, "This does not end with a turn of the assistant.")
    if prompt != rejected[:-1]:
        raise Unfit("rejected", "The two differ before their last turn, so they do not answer one prompt.")
    if not prompt:
        raise Unfit("chosen", "There is no prompt before the answer.")
    return pair(prompt, chosen[-1].content, rejected[-1].content, scores)


def _pair_scores(fields: Fields) -> list[float] | None:
    sides = [
        fields.take(f"score_{side}", f"{side}_score", f"{side}-rating", f"{side}_rating")
        for side in ("chosen", "rejected")
    ]
    return None if None in sides else [number_of(side, "score_chosen") for side in sides]


def _is_rated(row: Row) -> bool:
    found = row.get("completions")
    return has_text(row, *PROMPTS) and isinstance(found, list) and bool(found) and isinstance(found[0], dict)


def _read_rated(fields: Fields) -> list[Record]:
    asked, found = fields.text("instruction", *PROMPTS), fields.needed("completions")
    if len(found) < 2:
        raise Unfit("completions", "There are fewer than two completions to compare.")
    texts = [_completion(part, f"completions[{n}]") for n, part in enumerate(found)]
    return [
        ranked([Message("user", asked)], texts, [_score(part, f"completions[{n}]") for n, part in enumerate(found)])
    ]


def _completion(part: Any, field: str) -> str:
    names = ("response", "completion", "content", "text", "output")
    value = next((part[name] for name in names if part.get(name) is not None), None) if isinstance(part, dict) else None
    return text_of(value, f"{field}.response")


def _score(part: dict[str, Any], field: str) -> float:
    """Its own score, or the mean of its ratings by aspect, as in UltraFeedback."""
    for name in ("overall_score", "score", "rating", "Rating"):
        if part.get(name) is not None:
            return number_of(part[name], f"{field}.{name}")
    aspects = part.get("annotations")
    ratings = [
        float(aspect["Rating"])
        for aspect in (aspects.values() if isinstance(aspects, dict) else ())
        if isinstance(aspect, dict) and re.fullmatch(r"\d+(\.\d+)?", str(aspect.get("Rating")))
    ]
    if not ratings:
        raise Unfit(f"{field}.annotations", "There is no rating.")
    return sum(ratings) / len(ratings)


def _is_preferred_output(row: Row) -> bool:
    asked = row.get("input")
    return isinstance(asked, dict) and is_turns(asked.get("messages")) and is_turns(row.get("preferred_output"))


def _read_preferred_output(fields: Fields) -> list[Record]:
    messages = read_turns(fields.needed("input").get("messages"), "input.messages")
    sides = ("preferred_output", "non_preferred_output")
    chosen, rejected = (read_one_answer(fields.needed(side), side) for side in sides)
    return [pair(messages, chosen, rejected)]


def number_of(value: Any, field: str) -> float:
    """A number, or text that is one. Unfit for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise Unfit(field, "This is not a number.") from error
    if not math.isfinite(number):
        raise Unfit(field, "This is not a number.")
    return number


SHAPES = (
    Shape("preference records", "preference", "messages [], completions [], ranks []", _is_canonical, _read_canonical),
    Shape("UltraFeedback", "preference", "instruction, completions [response, ratings]", _is_rated, _read_rated),
    Shape(
        "preferred output",
        "preference",
        "input {messages}, preferred_output [], non_preferred_output []",
        _is_preferred_output,
        _read_preferred_output,
    ),
    Shape("prompt, chosen and rejected", "preference", "prompt, chosen, rejected", _is_explicit, _read_explicit),
    Shape(
        "HH-RLHF transcripts",
        "preference",
        "chosen, rejected: Human: … Assistant: …",
        _is_transcript,
        _read_transcripts,
    ),
    Shape("chosen and rejected", "preference", "chosen, rejected, which begin alike", _is_implicit, _read_implicit),
)
