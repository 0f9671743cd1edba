"""The routes: /v1/models, /v1/completions, /v1/chat/completions, /health."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from stages.asking.completion import TextModel
from stages.asking.dialogue import Dialogue
from stages.serve.answers import Answers, Choice
from stages.serve.batcher import Batcher, Piece, Question
from stages.serve.guard import App, Guard, Refused, TooLarge
from stages.serve.questions import ChatRequest, CompletionRequest, Reading, parse, read_chat, read_completion

FLUSH = 0.02
"""Seconds of text that go into one chunk of a stream, at least."""
CHUNKS = 500
"""Chunks a second of all streams together: to write and to read one costs as much as a token of a small model."""


@dataclass
class Served:
    """A model that is served."""

    name: str
    digest: str
    created: int
    """When its checkpoint was written, in seconds since 1970."""
    model: TextModel
    dialogue: Dialogue | None


class Inbox(asyncio.Queue[tuple[int, Piece]]):
    """What the batcher delivers to one request, by the number of the choice."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = asyncio.Event()
        """Nothing more will come."""
        self._unfinished = 0

    def opening(self) -> Callable[[Piece], None]:
        """What takes in the pieces of one more choice."""
        number = self._unfinished
        self._unfinished += 1

        def deliver(piece: Piece) -> None:
            self.put_nowait((number, piece))
            self._unfinished -= bool(piece.finished or piece.error)
            if not self._unfinished:
                self.ended.set()

        return deliver


class Endpoint:
    """Answers HTTP requests over a batcher."""

    def __init__(self, served: Served, slots: int, length: int) -> None:
        self.served = served
        self._loop: asyncio.AbstractEventLoop | None = None
        self.batcher = Batcher(served.model, slots, length, self._hand_out)

    def app(self, *, token: str, host: str) -> App:
        """The ASGI application."""
        routes = [
            Route("/health", self._health),
            Route("/v1/models", self._models),
            Route("/v1/models/{name:path}", self._one_model),
            Route("/v1/completions", self._completions, methods=["POST"]),
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
        ]
        handlers: dict[Any, Any] = {404: _not_found, 405: _not_found, Refused: _refused, TooLarge: _too_large}
        app = Starlette(routes=routes, exception_handlers=handlers, lifespan=self._lifespan)
        return Guard(app, token=token, host=host)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self._loop = asyncio.get_running_loop()
        self.batcher.start()
        yield
        await asyncio.to_thread(self.batcher.close)

    def _hand_out(self, news: list[tuple[Question, Piece]]) -> None:
        """Called in the batcher's thread: what one step brought, passed to the event loop at once."""
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(_deliver, news)

    async def _health(self, _: Request) -> Response:
        running, waiting = self.batcher.load
        return _json({"status": "ok", "running": running, "waiting": waiting})

    async def _models(self, _: Request) -> Response:
        return _json({"object": "list", "data": [self._card()]})

    async def _one_model(self, request: Request) -> Response:
        if request.path_params["name"] != self.served.name:
            raise Refused(404, "model_not_found", "There is no such model here.", f"It is {self.served.name!r}.")
        return _json(self._card())

    def _card(self) -> dict[str, Any]:
        name, created, length = self.served.name, self.served.created, self.batcher.length
        return {"id": name, "object": "model", "created": created, "owned_by": "workbench", "max_model_len": length}

    async def _completions(self, request: Request) -> Response:
        asked = parse(await request.body(), CompletionRequest, self.served.name)
        reading = await asyncio.to_thread(read_completion, asked, self.served.model, self.batcher.length)
        return await self._answer(request, reading, chat=False)

    async def _chat(self, request: Request) -> Response:
        asked = parse(await request.body(), ChatRequest, self.served.name)
        served = self.served
        reading = await asyncio.to_thread(read_chat, asked, served.model, served.dialogue, self.batcher.length)
        return await self._answer(request, reading, chat=True)

    async def _answer(self, request: Request, reading: Reading, *, chat: bool) -> Response:
        inbox = Inbox()
        questions = _questions(reading, inbox)
        if not self.batcher.ask(questions):
            raise Refused(429, "busy", "Too many requests wait already.", "Ask again in a while.")
        served, logprobs = self.served, reading.logprobs is not None
        answers = Answers(served.name, served.digest, served.model.tokenizer, chat=chat, logprobs=logprobs)
        exchange = Exchange(reading, questions, inbox, answers, self)
        if reading.stream:
            return StreamingResponse(exchange.stream(), media_type="text/event-stream")
        return await exchange.whole(request)


class Exchange:
    """One request and its answers."""

    def __init__(
        self, reading: Reading, questions: list[Question], inbox: Inbox, answers: Answers, endpoint: Endpoint
    ) -> None:
        self._reading, self._questions, self._inbox = reading, questions, inbox
        self._answers, self._endpoint = answers, endpoint
        self._choices = [Choice() for _ in questions]

    @property
    def _prompt_tokens(self) -> int:
        return sum(map(len, self._reading.prompts))

    async def whole(self, request: Request) -> Response:
        """The answer in one piece, or nothing at all to a client who has gone."""
        answering = asyncio.ensure_future(self._collect())
        leaving = asyncio.ensure_future(_gone(request))
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                return Response(status_code=499)
            answering.result()
        finally:
            self._give_up()
            answering.cancel()
            leaving.cancel()
        return _json(self._answers.whole(self._choices, self._prompt_tokens))

    async def stream(self) -> AsyncIterator[bytes]:
        """Server-sent events, until the last choice has ended. Leaving it, as when the client goes, frees the slots."""
        try:
            for each in self._answers.opening(len(self._choices)):
                yield _event(each)
            while not all(choice.finished for choice in self._choices):
                try:
                    fresh = await self._next()
                except Refused as refused:
                    yield b"data: " + bytes(refused.response().body) + b"\n\n"
                    return
                for number, choice in fresh.items():
                    yield _event(self._answers.chunk(number, choice))
                await self._pause()
            if self._reading.usage:
                yield _event(self._answers.closing(self._choices, self._prompt_tokens))
            yield b"data: [DONE]\n\n"
        finally:
            self._give_up()

    async def _pause(self) -> None:
        """Let text gather for the next chunk, but not when all is known."""
        running, _ = self._endpoint.batcher.load
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(FLUSH, running / CHUNKS)):
                await self._inbox.ended.wait()

    async def _collect(self) -> None:
        while not all(choice.finished for choice in self._choices):
            await self._next()

    async def _next(self) -> dict[int, Choice]:
        """Wait for news; what is new of each choice. Raises Refused when the model failed."""
        fresh: dict[int, Choice] = {}
        waiting = [await self._inbox.get()]
        while not self._inbox.empty():
            waiting.append(self._inbox.get_nowait())
        for number, piece in waiting:
            if piece.error is not None:
                raise Refused(500, "failed", piece.error.title, piece.error.hint)
            piece = self._with_echo(piece)
            for choice in (self._choices[number], fresh.setdefault(number, Choice())):
                choice.add(piece)
        return fresh

    def _with_echo(self, piece: Piece) -> Piece:
        """The prompt's tokens, which a completion may repeat, as the first of the answer's."""
        if piece.prompt is None:
            return piece
        tokens = [scored.token for scored in piece.prompt]
        text = self._endpoint.served.model.tokenizer.decode(tokens, skip_special=False)
        return Piece(text, piece.prompt, 0, finished=piece.finished)

    def _give_up(self) -> None:
        for question, choice in zip(self._questions, self._choices, strict=True):
            if not choice.finished:
                self._endpoint.batcher.cancel(question)


def _questions(reading: Reading, inbox: Inbox) -> list[Question]:
    """A question for each choice of each prompt, in the order of the answer."""
    made: list[Question] = []
    for prompt in reading.prompts:
        for sampling in reading.samplings:
            score = (reading.logprobs or 0) if reading.echo else None
            made.append(Question(prompt, sampling, reading.stops, score, inbox.opening()))
    return made


def _deliver(news: Sequence[tuple[Question, Piece]]) -> None:
    for question, piece in news:
        if not question.cancelled:
            question.deliver(piece)


async def _gone(request: Request) -> None:
    """Return when the client has closed the connection."""
    while not await request.is_disconnected():
        await asyncio.sleep(0.1)


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def _json(body: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json")


async def _refused(_: Request, refused: Refused) -> Response:
    return refused.response()


async def _too_large(_: Request, __: TooLarge | ClientDisconnect) -> Response:
    return Refused(413, "too_large", "The request's body is too large.").response()


async def _not_found(request: Request, _: Exception) -> Response:
    asked = f"{request.method} {request.url.path[:100]} is not served."
    return Refused(404, "not_found", asked, "There is /v1/models, /v1/completions, /v1/chat/completions.").response()
