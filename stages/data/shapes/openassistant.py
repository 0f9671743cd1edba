"""OpenAssistant's conversation trees: a prompt, its replies with their ranks, their replies, and so on.

Files come as trees ({message_tree_id, prompt: {text, role, replies}}) or as one message a row, each naming its parent;
`as_trees` puts the second form into the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from stages.data.shapes.base import Fields, Row, Shape, Unfit, text_of
from stages.data.shapes.chat import conversation
from stages.data.shapes.turns import ROLES
from stages.store.records import Message, PreferenceRecord, Record

DEEPEST = 60
"""Turns of a thread; a tree that goes deeper is refused."""


def is_message_row(row: Row) -> bool:
    """Whether a row is one message of a tree."""
    return {"message_tree_id", "message_id", "parent_id", "text", "role"} <= row.keys()


def as_trees(rows: Iterable[tuple[int, Row]]) -> Iterator[tuple[int, Row]]:
    """Trees from rows of messages that stand together, with the number of the row in which each begins."""
    held: list[Row] = []
    first = 0
    for number, row in rows:
        if held and held[0].get("message_tree_id") != row.get("message_tree_id"):
            yield first, _tree(held)
            held = []
        first = first if held else number
        held.append(row)
    if held:
        yield first, _tree(held)


def _tree(rows: list[Row]) -> Row:
    nodes = {row["message_id"]: {**row, "replies": []} for row in rows if isinstance(row.get("message_id"), str)}
    roots: list[Row] = []
    for node in nodes.values():
        parent = nodes.get(node.get("parent_id") or "")
        (parent["replies"] if parent else roots).append(node)
    return {"message_tree_id": rows[0].get("message_tree_id"), "prompt": roots[0] if roots else None}


def _fits(row: Row) -> bool:
    prompt = row.get("prompt")
    return "message_tree_id" in row and isinstance(prompt, dict) and isinstance(prompt.get("replies"), list)


def _read_threads(fields: Fields) -> list[Record]:
    """A conversation for each way down the tree that takes the best-ranked reply of the assistant."""
    return [conversation(list(thread), "prompt") for thread in _threads(fields.needed("prompt"), "prompt", ())]


def _threads(node: Any, field: str, before: tuple[Message, ...]) -> Iterator[tuple[Message, ...]]:
    thread = (*before, _message(node, field, len(before)))
    replies = _replies(node)
    if replies and _message(replies[0], field, len(thread)).role == "assistant":
        replies = [min(replies, key=_rank)]
    answered = False
    for n, reply in enumerate(replies):
        for longer in _threads(reply, f"{field}.replies[{n}]", thread):
            answered = True
            yield longer
    if not answered and thread[-1].role == "assistant":
        yield thread


def _read_rankings(fields: Fields) -> list[Record]:
    """A ranking for each turn of the prompter that has two ranked replies or more."""
    found = list(_rankings(fields.needed("prompt"), "prompt", ()))
    if not found:
        raise Unfit("prompt", "No message in this tree has two ranked replies.")
    return found


def _rankings(node: Any, field: str, before: tuple[Message, ...]) -> Iterator[Record]:
    thread = (*before, _message(node, field, len(before)))
    replies = _replies(node)
    ranked = [reply for reply in replies if isinstance(reply, dict) and isinstance(reply.get("rank"), int)]
    if thread[-1].role == "user" and len(ranked) > 1:
        texts = [_message(reply, field, len(thread)).content for reply in ranked]
        ranks = [1 + sum(other["rank"] < reply["rank"] for other in ranked) for reply in ranked]
        yield PreferenceRecord(messages=list(thread), completions=texts, ranks=ranks)
    for n, reply in enumerate(replies):
        yield from _rankings(reply, f"{field}.replies[{n}]", thread)


def _replies(node: Any) -> list[Any]:
    replies = node.get("replies") or []
    return replies if isinstance(replies, list) else []


def _rank(reply: Any) -> float:
    rank = reply.get("rank") if isinstance(reply, dict) else None
    return rank if isinstance(rank, int) else float("inf")


def _message(node: Any, field: str, depth: int) -> Message:
    if not isinstance(node, dict) or node.get("role") not in ROLES:
        raise Unfit(field, "This is not a message with a text and a role.")
    if depth >= DEEPEST:
        raise Unfit(field, f"This tree is more than {DEEPEST} turns deep.")
    return Message(ROLES[node["role"]], text_of(node.get("text"), f"{field}.text"))


SHAPES = (
    Shape("OpenAssistant trees", "chat", "message_tree_id, prompt {text, role, replies}", _fits, _read_threads),
    Shape(
        "OpenAssistant rankings", "preference", "message_tree_id, prompt {text, role, replies}", _fits, _read_rankings
    ),
)
