"""Prompts: what a model is asked, with or without the answer."""

from __future__ import annotations

from stages.data.shapes.base import Fields, Row, Shape, Unfit, has_text, is_texts, texts_of
from stages.data.shapes.turns import LISTS, as_prompt, has_answer, is_turns, read_turns
from stages.store.records import Message, PromptRecord, Record

NAMES = ("prompt", "instruction", "question", "query")


def _is_listed(row: Row) -> bool:
    found = next((row[name] for name in LISTS if row.get(name) is not None), None)
    return is_turns(found) and isinstance(found, list) and not has_answer(found[-1:])


def _read_listed(fields: Fields) -> list[Record]:
    messages = read_turns(fields.needed(*LISTS), "messages")
    if messages[-1].role == "assistant":
        raise Unfit("messages", "This ends with a turn of the assistant, so it is not a prompt.")
    answer = fields.optional("answer")
    return [PromptRecord(messages=messages, answer=answer or None)]


def _has_turns(row: Row) -> bool:
    return is_texts(row.get("turns"))


def _read_turns(fields: Fields) -> list[Record]:
    """MT-Bench asks the second turn after the model's own first answer: the first is the prompt."""
    turns = texts_of(fields.needed("turns"), "turns")
    reference = fields.take("reference", "answer")
    if isinstance(reference, list):
        reference = reference[0] if reference else None
    answer = reference if isinstance(reference, str) else None
    meta = {"following_turns": turns[1:]} if turns[1:] else {}
    return [PromptRecord(messages=[Message("user", turns[0])], answer=answer, meta=meta)]


def _is_prompt(row: Row) -> bool:
    return has_text(row, *NAMES) or is_turns(row.get("prompt"))


def _read_prompt(fields: Fields) -> list[Record]:
    messages = as_prompt(fields.needed(*NAMES), "prompt")
    answer = fields.optional("answer", "ground_truth", "solution")
    return [PromptRecord(messages=messages, answer=answer or None)]


SHAPES = (
    Shape("MT-Bench questions", "prompts", "turns []", _has_turns, _read_turns),
    Shape("prompt records", "prompts", "messages [role, content], answer?", _is_listed, _read_listed),
)
LATE = (Shape("prompts alone", "prompts", "prompt, answer?", _is_prompt, _read_prompt),)
