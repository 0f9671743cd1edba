"""Many questions answered at once: one thread owns the model and steps the Engine, every step a token for each."""

from __future__ import annotations

import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch

from stages.asking.completion import TextModel
from stages.asking.text_stream import TextStream
from stages.generate import Engine, Sampling
from stages.generate import Token as Generated
from stages.store.errors import UserError, WorkFailed

WAITING = 1_024
"""Questions that may wait for a slot; more are refused, so that a flood does not fill the memory."""
SCORED = 512
"""Tokens of a prompt whose logits are held at a time when it is scored."""


class Scored(NamedTuple):
    """A token with its log-probability, None where nothing stands before it, and the likeliest ones in its place."""

    token: int
    logprob: float | None
    alternatives: tuple[tuple[int, float], ...] = ()


class Piece(NamedTuple):
    """What became known about one question: text, the tokens it comes from, and at last why it ended."""

    text: str = ""
    tokens: tuple[Scored, ...] = ()
    generated: int = 0
    """Tokens that were generated, those that end the text included."""
    prompt: tuple[Scored, ...] | None = None
    """The prompt's tokens, once, where they were to be scored."""
    finished: Literal["stop", "length"] | None = None
    error: UserError | None = None


@dataclass(eq=False)
class Question:
    """One sequence to be continued."""

    prompt: Sequence[int]
    sampling: Sampling | None
    """None: the prompt is only scored."""
    stops: tuple[str, ...]
    score: int | None
    """Score the prompt's tokens too, with this many alternatives."""
    deliver: Callable[[Piece], None]
    """Called in the event loop's thread."""
    cancelled: bool = field(default=False, init=False)


@dataclass
class _Running:
    question: Question
    stream: TextStream


class Batcher:
    """Answers questions over `slots` slots of an engine, in a thread of its own.

    `hand_out` is given what one step brought, from that thread: it passes each piece on to its question.
    """

    def __init__(
        self, model: TextModel, slots: int, length: int, hand_out: Callable[[list[tuple[Question, Piece]]], None]
    ) -> None:
        self.model = model
        self.length = length
        self._engine = Engine(model.decoder, slots, length)
        self._hand_out = hand_out
        self._waiting: deque[Question] = deque()
        self._running: dict[int, _Running] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, daemon=True, name="batcher")

    def start(self) -> None:
        """Begin to answer, in a thread."""
        self._thread.start()

    def close(self) -> None:
        """End after the running step; what is not answered stays unanswered."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    @property
    def load(self) -> tuple[int, int]:
        """Questions that run and that wait."""
        return len(self._running), len(self._waiting)

    def ask(self, questions: Sequence[Question]) -> bool:
        """Queue questions. False when too many wait already."""
        with self._changed:
            if len(self._waiting) + len(questions) > WAITING:
                return False
            self._waiting.extend(questions)
            self._changed.notify()
        return True

    def cancel(self, question: Question) -> None:
        """Give a question up: its slot is free before the next step."""
        question.cancelled = True

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._waiting or self._running or self._closing):
                    self._changed.wait()
                if self._closing:
                    return
            self._drop_cancelled()
            news = self._admit()
            if self._running:
                try:
                    news += self._step()
                except Exception as error:  # noqa: BLE001 - told to those who asked, kept in the log; the next may work
                    news += self._fail(error)
            if news:
                self._hand_out(news)

    def _drop_cancelled(self) -> None:
        for slot, running in list(self._running.items()):
            if running.question.cancelled:
                self._engine.cancel(slot)
                del self._running[slot]

    def _admit(self) -> list[tuple[Question, Piece]]:
        """Give free slots to those who wait, in their order."""
        news = []
        while self._waiting and self._engine.free_slots:
            question = self._waiting.popleft()
            if question.cancelled:
                continue
            try:
                if question.score is not None:
                    scored = prompt_scores(self.model, question.prompt, question.score)
                    news.append((question, Piece(prompt=scored, finished=None if question.sampling else "length")))
                if question.sampling:
                    slot = self._engine.add(question.prompt, question.sampling)
                    self._running[slot] = _Running(question, TextStream(self.model.tokenizer, question.stops))
            except Exception as error:  # noqa: BLE001 - as above
                news.append((question, Piece(error=_told(error))))
        return news

    def _step(self) -> list[tuple[Question, Piece]]:
        return [(self._running[new.slot].question, self._piece(new)) for new in self._engine.step()]

    def _piece(self, new: Generated) -> Piece:
        running = self._running[new.slot]
        sampling = running.question.sampling
        assert sampling is not None
        ended = new.token in sampling.stop_ids
        text = "" if ended else running.stream.feed(new.token)
        finished: Literal["stop", "length"] | None = None
        if running.stream.stopped or ended:
            finished = "stop"
        elif new.finished:
            finished = "length"
        if finished:
            self._engine.cancel(new.slot)
            del self._running[new.slot]
            text += running.stream.finish(cut=finished == "length")
        # The token that ends a text has none, and a log-probability: harnesses take one for each that is counted.
        return Piece(text, (Scored(new.token, new.logprob, new.alternatives),), 1, finished=finished)

    def _fail(self, error: Exception) -> list[tuple[Question, Piece]]:
        news = [(running.question, Piece(error=_told(error))) for running in self._running.values()]
        for slot in list(self._running):
            self._engine.cancel(slot)
        self._running.clear()
        return news


def _told(error: Exception) -> UserError:
    if isinstance(error, UserError):
        return error
    traceback.print_exception(error)
    return WorkFailed(f"The model could not go on: {type(error).__name__}: {str(error)[:300]}.")


@torch.inference_mode()
def prompt_scores(model: TextModel, prompt: Sequence[int], alternatives: int) -> tuple[Scored, ...]:
    """log p(token | those before it) in nats for every token of a prompt but the first, which has none."""
    decoder = model.decoder
    tokens_T = torch.tensor(list(prompt), device=decoder.tokens.device)
    hidden_TC = decoder.hidden_states(tokens_T[None]).reshape(len(prompt), -1)
    scored = [Scored(prompt[0], None)]
    for start in range(0, len(prompt) - 1, SCORED):
        rows = slice(start, min(start + SCORED, len(prompt) - 1))
        logprobs_MV = decoder.logits(hidden_TC[rows]).float().log_softmax(-1)
        targets_M = tokens_T[rows.start + 1 : rows.stop + 1]
        found = logprobs_MV.topk(min(max(alternatives, 1), logprobs_MV.shape[1]))
        told = zip(
            targets_M.tolist(),
            logprobs_MV.gather(1, targets_M[:, None])[:, 0].tolist(),
            found.indices.tolist(),
            found.values.tolist(),
            strict=True,
        )
        scored += [
            Scored(token, logprob, tuple(zip(ids, values, strict=True))[:alternatives])
            for token, logprob, ids, values in told
        ]
    return tuple(scored)
