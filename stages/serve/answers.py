"""What is said: the JSON of OpenAI's completions and chat completions, whole or in chunks."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from stages.data.tokenizer import TextTokenizer
from stages.serve.batcher import Piece, Scored


@dataclass
class Choice:
    """One answer as it grows."""

    text: str = ""
    tokens: list[Scored] = field(default_factory=list)
    generated: int = 0
    finished: str | None = None

    def add(self, piece: Piece) -> None:
        """Take a piece in."""
        self.text += piece.text
        self.tokens += piece.tokens
        self.generated += piece.generated
        self.finished = piece.finished or self.finished


class Answers:
    """Writes the answers to one request."""

    def __init__(self, model: str, digest: str, tokenizer: TextTokenizer, *, chat: bool, logprobs: bool) -> None:
        self._chat, self._logprobs, self._tokenizer = chat, logprobs, tokenizer
        self._head: dict[str, Any] = {
            "id": ("chatcmpl-" if chat else "cmpl-") + secrets.token_hex(12),
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": digest[:16] or None,
        }
        self._offsets: dict[int, int] = {}  # characters of a choice that have been told with log-probabilities

    def whole(self, choices: Sequence[Choice], prompt_tokens: int) -> dict[str, Any]:
        """The answer of a request that does not stream."""
        kind = "chat.completion" if self._chat else "text_completion"
        told = [self._choice(number, choice, "message") for number, choice in enumerate(choices)]
        return {**self._head, "object": kind, "choices": told, "usage": usage(prompt_tokens, choices)}

    def opening(self, choices: int) -> list[dict[str, Any]]:
        """The chunks that a chat stream begins with: they say who speaks."""
        delta = {"role": "assistant", "content": ""}
        shown = [{"index": n, "delta": delta, "logprobs": None, "finish_reason": None} for n in range(choices)]
        return [self._chunk([one]) for one in shown] if self._chat else []

    def chunk(self, number: int, fresh: Choice) -> dict[str, Any]:
        """A chunk of a stream: what is new of one choice."""
        return self._chunk([self._choice(number, fresh, "delta")])

    def closing(self, choices: Sequence[Choice], prompt_tokens: int) -> dict[str, Any]:
        """The chunk that counts the tokens."""
        return {**self._chunk([]), "usage": usage(prompt_tokens, choices)}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            **self._head,
            "object": "chat.completion.chunk" if self._chat else "text_completion",
            "choices": choices,
        }

    def _choice(self, number: int, choice: Choice, where: str) -> dict[str, Any]:
        told: dict[str, Any] = {"index": number, "finish_reason": choice.finished, "logprobs": None}
        if self._logprobs:
            told["logprobs"] = self._content(choice.tokens) if self._chat else self._columns(number, choice.tokens)
        if not self._chat:
            return {**told, "text": choice.text}
        message = {"content": choice.text} if where == "delta" else {"role": "assistant", "content": choice.text}
        return {**told, where: message}

    def _content(self, tokens: Sequence[Scored]) -> dict[str, Any]:
        """Log-probabilities as chat completions tell them."""
        return {
            "content": [
                {
                    **self._named(each.token, each.logprob),
                    "top_logprobs": [self._named(token, logprob) for token, logprob in each.alternatives],
                }
                for each in tokens
            ],
            "refusal": None,
        }

    def _named(self, token: int, logprob: float | None) -> dict[str, Any]:
        data = self._tokenizer.token_bytes(token)
        return {"token": data.decode(errors="replace"), "logprob": logprob, "bytes": list(data)}

    def _columns(self, number: int, tokens: Sequence[Scored]) -> dict[str, Any]:
        """Log-probabilities as completions tell them."""
        offset = self._offsets.get(number, 0)
        columns: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for each in tokens:
            text = self._text(each.token)
            alternatives = {self._text(token): logprob for token, logprob in reversed(each.alternatives)}
            columns["tokens"].append(text)
            columns["token_logprobs"].append(each.logprob)
            columns["top_logprobs"].append(alternatives if each.logprob is not None else None)
            columns["text_offset"].append(offset)
            offset += len(text)
        self._offsets[number] = offset
        return columns

    def _text(self, token: int) -> str:
        return self._tokenizer.token_bytes(token).decode(errors="replace")


def usage(prompt_tokens: int, choices: Sequence[Choice]) -> dict[str, int]:
    """The count of tokens."""
    generated = sum(choice.generated for choice in choices)
    return {"prompt_tokens": prompt_tokens, "completion_tokens": generated, "total_tokens": prompt_tokens + generated}
