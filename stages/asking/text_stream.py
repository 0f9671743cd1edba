"""Tokens as text while they come: whole characters, and nothing of a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Decodes(Protocol):
    """What turns ids into text: a tokenizer."""

    def decode(self, ids: list[int], /) -> str: ...


class TextStream:
    """Turns tokens into text as they come, a whole character at a time, up to a stop string.

    Text that may turn out to begin a stop string is held back. Bytes that are no UTF-8 come out as U+FFFD.
    """

    UNFINISHED = 3  # an incomplete character shows as at most three U+FFFD
    WINDOW = 24  # tokens decoded again with each new one; a tokenizer may join neighbours
    LONGEST = 96  # as many where no character is complete, as when a model babbles bytes

    def __init__(self, tokenizer: Decodes, stops: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stops = [stop for stop in stops if stop]
        self._ids: list[int] = []
        self._shown = 0  # characters of the window's text already taken
        self._held = ""
        self.stopped = False

    def feed(self, token: int) -> str:
        """The text that this token completes; empty once `stopped`."""
        if self.stopped:
            return ""
        self._ids.append(token)
        text = self._tokenizer.decode(self._ids)
        ready = text
        while ready.endswith("\ufffd") and len(text) - len(ready) < self.UNFINISHED:
            ready = ready[:-1]
        fresh, self._shown = ready[self._shown :], max(self._shown, len(ready))
        pending = len(text) - len(ready)
        if len(self._ids) > (self.LONGEST if pending else self.WINDOW):
            self._ids = self._ids[-self.WINDOW // 2 :]
            self._shown = max(0, len(self._tokenizer.decode(self._ids)) - pending)
        return self._release(fresh)

    def finish(self, *, cut: bool = False) -> str:
        """What was held back, once no more tokens come. cut: half a character at the end is left out."""
        if self.stopped:
            return ""
        text = self._release(self._tokenizer.decode(self._ids)[self._shown :]) if self._ids else ""
        held, self._held, self._ids, self._shown = self._held, "", [], 0
        text = text if self.stopped else text + held
        return text.rstrip("\ufffd") if cut else text

    def _release(self, fresh: str) -> str:
        text = self._held + fresh
        ends = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if ends:
            self.stopped, self._held = True, ""
            return text[: min(ends)]
        held = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of text that begins stop."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
