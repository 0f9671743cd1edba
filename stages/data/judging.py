"""What a record asks, what it answers, and what can be wrong with that; shared by cleaning and by the doctor."""

from __future__ import annotations

from itertools import pairwise

from stages.data.split import key_of
from stages.store.records import ChatRecord, LabelledRecord, PreferenceRecord, PromptRecord, Record, TextRecord


def prompt_of(record: Record) -> str:
    """What is asked, as one text; empty for a document, which asks nothing."""
    return "" if isinstance(record, TextRecord) else key_of(record)


def answers_of(record: Record) -> list[str]:
    """What a model would learn to say: the assistant's turns, the completions, the known answer."""
    match record:
        case ChatRecord():
            return [message.content for message in record.messages if message.role == "assistant"]
        case PreferenceRecord():
            return record.completions
        case PromptRecord():
            return [] if record.answer is None else [record.answer]
        case _:
            return []


def has_empty_answer(record: Record) -> bool:
    """Whether an answer or a completion has nothing but space in it."""
    return any(not answer.strip() for answer in answers_of(record))


def wrong_roles(record: Record) -> str:
    """What is wrong with a conversation's roles, as a sentence; empty when nothing is, or it is no conversation.

    A system turn stands first, user and assistant alternate beginning with the user, and the assistant ends it. Tools
    may speak anywhere after the user.
    """
    if not isinstance(record, ChatRecord):
        return ""
    roles = [message.role for message in record.messages]
    if "system" in roles[1:]:
        return "A system turn stands after the first."
    turns = [role for role in roles if role in ("user", "assistant")]
    missing = [role for role in ("user", "assistant") if role not in turns]
    if missing:
        return f"No {missing[0]} speaks."
    if turns[0] != "user":
        return "The assistant speaks first."
    if "tool" not in roles and any(one == other for one, other in pairwise(turns)):
        return "One side speaks twice in a row."
    return "" if roles[-1] == "assistant" else "It does not end with an answer."


def prefers_nothing(record: Record) -> bool:
    """Whether a ranking ties everything, or compares a completion with itself."""
    if not isinstance(record, PreferenceRecord):
        return False
    return len(set(record.ranks)) < 2 or len(set(record.completions)) < 2


def longest_line(texts: list[str]) -> int:
    """Characters of the longest line in any of the texts."""
    return max((len(line) for text in texts for line in text.split("\n")), default=0)


def labels_of(record: Record) -> list[str]:
    """The labels that a record of kind labelled carries."""
    if not isinstance(record, LabelledRecord):
        return []
    return record.labels or ([record.label] if record.label is not None else [])
