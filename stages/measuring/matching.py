"""Whether an answer is the one that is wanted.

exact     the same words, whatever their case, spaces and closing punctuation
contains  the wanted words stand in it
number    the last number of both is the same, as the answers of GSM8K are told
world     by the starter world's own rule, for its prompts
auto      world or number where the record has what they need, else exact
"""

from __future__ import annotations

import re

from stages.data.world import is_correct
from stages.store.records import PromptRecord


def is_right(record: PromptRecord, text: str, match: str) -> bool:
    """Whether an answer is the record's, by the rule `match`."""
    assert record.answer is not None
    match = rule_of(record, match)
    if match == "world":
        return is_correct({"answer": record.answer, "meta": record.meta}, text)
    if match == "number":
        wanted, said = _last_number(record.answer), _last_number(text)
        return wanted is not None and wanted == said
    if match == "contains":
        return _plain(record.answer) in _plain(text)
    return _plain(text) == _plain(record.answer)


def rule_of(record: PromptRecord, match: str) -> str:
    """The rule that is meant: `match` itself, or what `auto` comes to for this record."""
    if match != "auto":
        return match
    if {"lead", "answer"} <= record.meta.keys():
        return "world"
    return "number" if "####" in (record.answer or "") else "exact"


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".!?").strip()


def _last_number(text: str) -> float | None:
    found = re.findall(r"-?\d[\d,]*(?:\.\d+)?", text)
    return float(found[-1].replace(",", "")) if found else None
