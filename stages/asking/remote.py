"""A model behind somebody's OpenAI-compatible endpoint, in the place of one that is loaded here."""

from __future__ import annotations

import queue
import secrets
import threading
import time
from collections.abc import Sequence
from typing import Literal

from stages.store.architecture import ModelConfig
from stages.store.chat import Done, Reason, Request, Turn
from stages.store.endpoint_http import Part, stream
from stages.store.endpoints import Endpoint
from stages.store.specs.chat import Chat

WAIT = 0.05
"""Seconds that a step waits for text, so that a cancel is heard meanwhile."""


class RemoteSpeaker:
    """An endpoint in the place of a loaded model."""

    precision = ""
    parameters = 0
    config = ModelConfig(layers=1, heads=1, width=1, context=1, vocab_size=1)
    """Nothing is known of its shape."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.kind: Literal["base", "chat"] = "base" if endpoint.kind == "base" else "chat"
        self.note = f"{endpoint.model} answers at {endpoint.url}."

    def start(self, request: Request, settings: Chat) -> RemoteAnswer:
        asked = request.prompt or "" if request.messages is None else request.messages
        return RemoteAnswer(self._endpoint, asked, settings)

    def stop(self) -> None:
        """Nothing is kept between answers."""


class RemoteAnswer:
    """One answer, read in a thread so that it can be cancelled while the endpoint is silent."""

    def __init__(self, endpoint: Endpoint, asked: str | Sequence[Turn], settings: Chat) -> None:
        self.done: Done | None = None
        self._seed = settings.seed if settings.seed is not None else secrets.randbelow(2**31)
        self._parts: queue.SimpleQueue[Part | Exception | None] = queue.SimpleQueue()
        self._cancelled = False
        self._started = time.perf_counter()
        self._counted: int | None = None
        self._pieces = self._prompt_tokens = 0
        self._reason: Reason = "end"
        arguments = (endpoint, asked, settings)
        threading.Thread(target=self._read, args=arguments, daemon=True).start()

    @property
    def generated(self) -> int:
        """Tokens so far: as the endpoint counts them, else the pieces that came."""
        return self._pieces if self._counted is None else self._counted

    def step(self) -> str:
        """The text that came since; empty after a moment without any."""
        try:
            part = self._parts.get(timeout=WAIT)
        except queue.Empty:
            return ""
        if isinstance(part, Exception):
            raise part
        if part is None:
            return self._finish(self._reason)
        self._pieces += bool(part.text)
        self._counted = part.tokens if part.tokens is not None else self._counted
        self._prompt_tokens = part.prompt_tokens or self._prompt_tokens
        if part.finished is not None:
            self._reason = "length" if part.finished == "length" else "end"
        return part.text

    def cancel(self) -> str:
        """End here. The connection is closed with the next byte that comes."""
        self._cancelled = True
        return self._finish("cancelled")

    def _finish(self, reason: Reason) -> str:
        self.done = Done.since(
            self._started, reason, self.generated, seed=self._seed, prompt_tokens=self._prompt_tokens
        )
        return ""

    def _read(self, endpoint: Endpoint, asked: str | Sequence[Turn], settings: Chat) -> None:
        try:
            for part in stream(endpoint, asked, settings, self._seed):
                if self._cancelled:
                    return
                self._parts.put(part)
            self._parts.put(None)
        except Exception as error:  # noqa: BLE001 - raised again in `step`, where it is told
            self._parts.put(error)
