"""What the app and the chat process say to each other: JSON objects, one a line.

To the process    {"id": 1, "prompt": "Once", "sampling": {"temperature": 0.8}}      {"cancel": 1}
From the process  {"ready": {…}} or {"error": {…}} once, then for each request {"id": 1, "text": "upon"} … and
                  {"id": 1, "done": {…}} or {"id": 1, "error": {…}}; {"ended": "idle"} when it leaves by itself
"""

from __future__ import annotations

import time
from typing import Any, Literal

import msgspec

MAX_LINE = 16 * 1024 * 1024
"""Bytes in a line; longer requests are refused."""

Reason = Literal["end", "stop", "length", "cancelled"]

REASONS: dict[Reason, str] = {
    "end": "end of text",
    "stop": "stop text",
    "length": "length reached",
    "cancelled": "cancelled",
}
"""Why a completion ended, in words."""


class Turn(msgspec.Struct, frozen=True):
    """One message of a conversation."""

    role: str
    content: str


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Complete `prompt`, answer `messages`, or cancel the request of that id."""

    id: int | None = None
    prompt: str | None = None
    messages: list[Turn] | None = None
    sampling: dict[str, Any] = {}
    """Settings of specs.chat.Chat; what is left out has its default."""
    cancel: int | None = None


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """The model that is loaded."""

    kind: Literal["base", "chat"]
    parameters: int
    context: int
    """Tokens that the model sees at once."""
    vocab_size: int
    device: str
    precision: str
    name: str = ""
    step: int = 0
    digest: str = ""
    """Of the checkpoint; empty for a folder that others wrote."""
    note: str = ""
    """A sentence the user should know, such as why the CPU is used."""


class Trouble(msgspec.Struct, frozen=True):
    """A UserError on its way through a pipe."""

    title: str
    hint: str = ""


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """How a completion ended."""

    reason: Reason
    tokens: int
    seconds: float
    tokens_per_s: float
    seed: int
    """The seed that was in force; with it and the same settings the text comes out again."""
    prompt_tokens: int = 0
    cut: bool = False
    """Whether the start of the prompt had to be left out to fit the context."""
    turns_cut: int = 0
    """Messages at the start of the conversation that were left out."""

    @classmethod
    def since(
        cls,
        started: float,
        reason: Reason,
        tokens: int,
        *,
        seed: int,
        prompt_tokens: int = 0,
        cut: bool = False,
        turns_cut: int = 0,
    ) -> Done:
        """The end, now, of what began at `started` by time.perf_counter()."""
        seconds = time.perf_counter() - started
        return cls(
            reason=reason,
            tokens=tokens,
            seconds=seconds,
            tokens_per_s=tokens / seconds if seconds > 0 else 0.0,
            seed=seed,
            prompt_tokens=prompt_tokens,
            cut=cut,
            turns_cut=turns_cut,
        )


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line from the process; exactly one of ready, error, text, done and ended is there."""

    id: int | None = None
    ready: Facts | None = None
    error: Trouble | None = None
    text: str | None = None
    tokens: int = 0
    """With `text`: tokens of this answer so far."""
    done: Done | None = None
    ended: str | None = None


def encode(message: Request | Reply) -> bytes:
    """The line, newline included."""
    return msgspec.json.encode(message) + b"\n"


def well_formed(text: str) -> str:
    """`text` as it can travel: lone surrogates, which UTF-8 has no form for, become U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
