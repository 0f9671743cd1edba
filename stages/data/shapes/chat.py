"""Conversations: lists of messages, and the many pairs of fields that hold a prompt and its answer."""

from __future__ import annotations

from typing import Any

from stages.data.shapes.base import Fields, Row, Shape, Unfit, has_text, text_of
from stages.data.shapes.turns import LISTS, as_prompt, has_answer, is_turns, read_turns
from stages.store.records import ChatRecord, Message, Record

SYSTEM = ("system", "system_prompt")


def conversation(messages: list[Message], field: str = "messages") -> ChatRecord:
    """A chat record. Unfit when the assistant says nothing in it: there would be nothing to learn."""
    if not any(message.role == "assistant" for message in messages):
        raise Unfit(field, "The assistant says nothing in this conversation.")
    return ChatRecord(messages=messages)


def _listed(row: Row, key: str) -> bool:
    found = next((row[name] for name in LISTS if row.get(name) is not None), None)
    return has_answer(found) and isinstance(found, list) and key in found[0]


def _read_list(fields: Fields) -> list[Record]:
    system = fields.optional(*SYSTEM)
    turns = read_turns(fields.needed(*LISTS), "messages")
    return [conversation(_opened(system, turns))]


def _opened(system: str, turns: list[Message]) -> list[Message]:
    return [Message("system", system), *turns] if system and turns[0].role != "system" else turns


def _joins_turns(row: Row) -> bool:
    return is_turns(row.get("prompt")) and (has_answer(row.get("completion")) or has_text(row, "completion"))


def _read_joined(fields: Fields) -> list[Record]:
    asked, answer = fields.needed("prompt"), fields.needed("completion")
    told = [Message("assistant", answer)] if isinstance(answer, str) else read_turns(answer, "completion")
    return [conversation([*as_prompt(asked, "prompt"), *told])]


def _pair(
    name: str, told: str, asked: tuple[str, ...], answer: tuple[str, ...], more: tuple[str, ...] = (), *, only: str = ""
) -> Shape:
    """A prompt under one of `asked`, perhaps with more text under `more`, and its answer. `only`: a field it needs."""

    def fits(row: Row) -> bool:
        return has_text(row, *asked) and has_text(row, *answer) and (not only or only in row)

    def read(fields: Fields) -> list[Record]:
        prompt = _with_more(fields.text(*asked), fields.optional(*more) if more else "")
        turns = [*_history(fields), Message("user", prompt), Message("assistant", fields.text(*answer))]
        return [conversation(_opened(fields.optional(*SYSTEM), turns))]

    return Shape(name, "chat", told, fits, read)


def _with_more(prompt: str, more: str) -> str:
    return f"{prompt}\n\n{more}" if more.strip() else prompt


def _history(fields: Fields) -> list[Message]:
    """Earlier turns as pairs of texts, as some Alpaca files have them."""
    value = fields.take("history")
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        raise Unfit("history", "This is not a list of pairs of texts.")
    turns = []
    for n, (asked, answer) in enumerate(value):
        turns += [Message("user", text_of(asked, f"history[{n}][0]"))]
        turns += [Message("assistant", text_of(answer, f"history[{n}][1]"))]
    return turns


def _read_instances(fields: Fields) -> list[Record]:
    instruction, found = fields.text("instruction"), fields.needed("instances")
    if not isinstance(found, list) or not found:
        raise Unfit("instances", "This is not a list of instances.")
    return [_instance(instruction, part, f"instances[{n}]") for n, part in enumerate(found)]


def _instance(instruction: str, part: Any, field: str) -> Record:
    if not isinstance(part, dict):
        raise Unfit(field, "This is not an object with input and output.")
    output = part.get("output")
    if output is None:
        raise Unfit(f"{field}.output", "There is no output.")
    more = text_of(part.get("input") or "", f"{field}.input")
    return conversation(
        [Message("user", _with_more(instruction, more)), Message("assistant", text_of(output, f"{field}.output"))]
    )


def _has_instances(row: Row) -> bool:
    found = row.get("instances")
    return has_text(row, "instruction") and isinstance(found, list) and all(isinstance(part, dict) for part in found)


def _has_roles(row: Row) -> bool:
    return _listed(row, "role") or _listed(row, "speaker")


def _has_froms(row: Row) -> bool:
    return _listed(row, "from")


SHAPES = (
    Shape("self-instruct", "chat", "instruction, instances [input, output]", _has_instances, _read_instances),
    Shape("ShareGPT", "chat", "conversations [from, value]", _has_froms, _read_list),
    Shape("messages", "chat", "messages [role, content]", _has_roles, _read_list),
    Shape("prompt and completion, messages", "chat", "prompt [], completion []", _joins_turns, _read_joined),
)
LATE = (
    _pair("Alpaca", "instruction, input?, output", ("instruction",), ("output",), ("input",)),
    _pair(
        "Dolly",
        "instruction, context?, response",
        ("instruction",),
        ("response",),
        ("context", "input"),
        only="context",
    ),
    _pair("instruction and response", "instruction, response", ("instruction",), ("response", "answer"), ("input",)),
    _pair("prompt and completion", "prompt, completion", ("prompt",), ("completion",)),
    _pair("prompt and response", "prompt, response", ("prompt", "query"), ("response", "answer", "output", "reply")),
    _pair(
        "question and answer",
        "question, answer",
        ("question", "Question", "problem"),
        ("answer", "Answer", "response", "solution"),
        ("context",),
    ),
    _pair("input and output", "input, output", ("input", "inputs", "source_text"), ("output", "target", "targets")),
)
