"""Lists of messages as people write them, turned into ours."""

from __future__ import annotations

from typing import Any

import msgspec

from stages.data.shapes.base import Unfit
from stages.store.records import Message, Role

ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "ipython": "tool",
    "observation": "tool",
    "tool_response": "tool",
}
ROLE_NAMES, CONTENT_NAMES = ("role", "from", "speaker"), ("content", "value", "text")

LISTS = ("messages", "conversations", "conversation", "dialog", "dialogue")
"""Names under which conversations stand."""


def is_turns(value: Any) -> bool:
    """Whether this looks like a list of messages."""
    return isinstance(value, list) and bool(value) and all(_is_turn(turn) for turn in value[:20])


def has_answer(value: Any) -> bool:
    """Whether this looks like a list of messages in which the assistant speaks."""
    return is_turns(value) and any(_role_name(turn) in ASSISTANT for turn in value)


ASSISTANT = frozenset(name for name, role in ROLES.items() if role == "assistant")


def read_turns(value: Any, field: str) -> list[Message]:
    """Our messages. Unfit names the turn (from 0) that cannot be used."""
    if not isinstance(value, list) or not value:
        raise Unfit(field, "This is not a list of messages.")
    return [_message(turn, f"{field}[{n}]") for n, turn in enumerate(value)]


def read_one_answer(value: Any, field: str) -> str:
    """The text of an assistant's single turn, given as text or as a list of one message."""
    if isinstance(value, str):
        return value
    turns = read_turns(value, field)
    if len(turns) != 1 or turns[0].role != "assistant":
        raise Unfit(field, "This is not a single turn of the assistant.")
    return turns[0].content


def as_prompt(value: Any, field: str) -> list[Message]:
    """What is asked, given as text or as a list of messages."""
    return [Message("user", value)] if isinstance(value, str) else read_turns(value, field)


def _message(turn: Any, field: str) -> Message:
    if not isinstance(turn, dict):
        raise Unfit(field, "This is not a message: it should be an object with a role and a content.")
    name = _role_name(turn)
    if name not in ROLES:
        raise Unfit(f"{field}.role", f"The role {str(name)[:40]!r} is not known; known are {', '.join(ROLES)}.")
    return Message(ROLES[name], _content(turn, field), _trained(turn))


def _content(turn: dict[str, Any], field: str) -> str:
    """The text of a message. An assistant's calls of tools follow it, each as a <tool_call> with its JSON."""
    key = next((name for name in CONTENT_NAMES if turn.get(name) is not None), "content")
    value = turn.get(key)
    calls = turn.get("tool_calls") or ([turn["function_call"]] if turn.get("function_call") else [])
    if value is None and not calls:
        raise Unfit(f"{field}.{key}", "This message has no content.")
    text = "" if value is None else _joined(value, f"{field}.{key}")
    return "\n".join([*([text] if text else []), *map(_call, calls)]) if calls else text


def _joined(value: Any, field: str) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise Unfit(field, "This is not text.")
    parts = []
    for n, part in enumerate(value):
        text = part if isinstance(part, str) else part.get("text") if isinstance(part, dict) else None
        if not isinstance(text, str):
            sort = part.get("type", "something else") if isinstance(part, dict) else "something else"
            raise Unfit(f"{field}[{n}]", f"Only text can be read here, and this is {str(sort)[:40]}.")
        parts.append(text)
    return "".join(parts)


def _call(call: Any) -> str:
    inner = call.get("function", call) if isinstance(call, dict) else call
    if isinstance(inner, dict) and isinstance(inner.get("arguments"), str):
        inner = {**inner, "arguments": _decoded(inner["arguments"])}
    return f"<tool_call>\n{msgspec.json.encode(inner).decode()}\n</tool_call>"


def _decoded(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text


def _trained(turn: dict[str, Any]) -> bool | None:
    """Ours says `train`; fine-tuning files for hosted models say it with a weight of 0 or 1."""
    if isinstance(turn.get("train"), bool):
        return bool(turn["train"])
    return None if turn.get("weight") not in (0, 1) else bool(turn["weight"])


def _is_turn(turn: Any) -> bool:
    return isinstance(turn, dict) and isinstance(_role_name(turn), str)


def _role_name(turn: Any) -> Any:
    """The role as written, in small letters; None where there is none."""
    name = (
        next((turn[key] for key in ROLE_NAMES if turn.get(key) is not None), None) if isinstance(turn, dict) else None
    )
    return name.strip().lower() if isinstance(name, str) else name
