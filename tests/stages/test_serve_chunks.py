"""How the text of a stream is cut into chunks, without a model: the batcher's pieces come as the test says."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from stages.data.tokenizer import TextTokenizer
from stages.serve import app
from stages.serve.answers import Answers
from stages.serve.batcher import Piece, Question
from stages.serve.questions import Reading
from stages.store.errors import WorkFailed
from tests.tiny_model import write_tiny_checkpoint


def exchange_of(folder: Path, running: int, choices: int = 1) -> tuple[app.Exchange, list[Question]]:
    """A streamed request whose pieces the test delivers, beside others that run."""
    write_tiny_checkpoint(folder)
    inbox = app.Inbox()
    reading = Reading([[5]], [None] * choices, (), None, echo=False, stream=True, usage=False)
    questions = [Question([5], None, (), None, inbox.opening()) for _ in range(choices)]
    batcher = SimpleNamespace(load=(running, 0), cancel=lambda _: None)
    answers = Answers("m", "", TextTokenizer.load(folder), chat=False, logprobs=False)
    endpoint = cast(app.Endpoint, SimpleNamespace(batcher=batcher))
    return app.Exchange(reading, questions, inbox, answers, endpoint), questions


def texts(events: list[bytes]) -> list[tuple[int, str, str | None]]:
    """Of each chunk: its choice, its text, why it ends."""
    found: list[dict[str, Any]] = [json.loads(event.removeprefix(b"data: "))["choices"][0] for event in events[:-1]]
    assert events[-1] == b"data: [DONE]\n\n"
    return [(each["index"], each["text"], each["finish_reason"]) for each in found]


def test_the_more_streams_there_are_the_more_text_goes_into_a_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "CHUNKS", 1e-3)  # with one that runs, a pause of 1,000 seconds
    exchange, (question,) = exchange_of(tmp_path, running=1)

    async def stream() -> list[bytes]:
        question.deliver(Piece("a", generated=1))
        answer = exchange.stream()
        events = [await anext(answer)]
        rest = asyncio.ensure_future(anext(answer))
        for text in "bcd":
            await asyncio.sleep(0)
            question.deliver(Piece(text, generated=1))
        question.deliver(Piece("e", generated=1, finished="length"))
        return [*events, await rest, *[event async for event in answer]]

    told = texts(asyncio.run(asyncio.wait_for(stream(), 60)))
    assert told == [(0, "a", None), (0, "bcde", "length")], "the pause ends with the text"


def test_a_pause_goes_on_while_another_choice_is_not_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "CHUNKS", 1e-3)
    exchange, (first, second) = exchange_of(tmp_path, running=2, choices=2)

    async def stream() -> list[bytes]:
        first.deliver(Piece("a", generated=1, finished="stop"))
        answer = exchange.stream()
        events = [await anext(answer)]
        rest = asyncio.ensure_future(anext(answer))
        second.deliver(Piece("b", generated=1))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not rest.done()
        second.deliver(Piece(error=WorkFailed("It broke.")))
        return [*events, await rest]

    *_, last = asyncio.run(asyncio.wait_for(stream(), 60))
    assert b"It broke." in last
