"""Text in, text out: a model folder with its tokenizer, continuing one prompt at a time over the Engine."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from stages.asking.dialogue import Prompt
from stages.asking.text_stream import TextStream
from stages.asking.threads import choose_threads
from stages.data.tokenizer import TextTokenizer
from stages.generate import Engine, Sampling
from stages.models.bases import base_folder
from stages.models.decoder import Decoder
from stages.models.hf_config import end_ids
from stages.models.opening import open_decoder
from stages.store.chat import Done, Reason
from stages.store.errors import UserError
from stages.store.specs.chat import Chat
from stages.training.precision import choose_precision

CHARACTERS = 64
"""Characters of a prompt that are looked at for each token of context: far more than a token holds."""


@dataclass
class TextModel:
    """A decoder and its tokenizer on one device."""

    decoder: Decoder
    tokenizer: TextTokenizer
    precision: str
    end_ids: tuple[int, ...]
    """Tokens that end a text: the tokenizer's, and those that the model's folder names."""

    @property
    def context(self) -> int:
        """Tokens that it sees at once."""
        return self.decoder.config.context

    @property
    def parameters(self) -> int:
        """How many it has, a shared output layer once."""
        return sum(parameter.numel() for parameter in self.decoder.parameters())


def open_text_model(folder: Path, device: str, *, precision: str = "auto", threads: int | None = None) -> TextModel:
    """Load a checkpoint on `device` (cpu or cuda). On the CPU auto means fp32.

    Raises UserError in one sentence for a folder that is damaged, foreign, or without a matching tokenizer.
    """
    tokenizer = TextTokenizer.load(folder)
    if precision == "auto" and device == "cpu":
        precision = "fp32"
    chosen = choose_precision(precision, torch.device(device))
    decoder = open_decoder(folder, dtype=chosen.dtype, device=device)
    if tokenizer.vocab_size > decoder.config.vocab_size:
        sizes = f"{tokenizer.vocab_size:,} tokens and the model {decoder.config.vocab_size:,}"
        raise UserError(f"The tokenizer in {folder} has {sizes}.", "They do not belong together.")
    ends = tuple(sorted({tokenizer.eos_id, *end_ids(base_folder(folder))}))
    model = TextModel(decoder, tokenizer, chosen.name, ends)
    choose_threads(model.parameters, threads)
    return model


def room_for_prompt(context: int, settings: Chat) -> int:
    """Tokens of a prompt that leave room to answer: at least half the context."""
    return max(1, context - min(settings.max_new_tokens, context // 2))


class Completion:
    """One prompt being continued: call `step` for the next piece of text until `done` is there.

    A model sees `context` tokens at once. A longer text loses its start; when the context is full before
    `max_new_tokens`, the model goes on from the latter half of what it saw. An answer in a conversation ends there.
    """

    def __init__(self, model: TextModel, engine: Engine, prompt: str | Prompt, settings: Chat) -> None:
        self._model, self._engine, self._settings = model, engine, settings
        self.seed = settings.seed if settings.seed is not None else secrets.randbelow(2**31)
        self._dialogue = not isinstance(prompt, str)
        self._turns_cut, self._stops = 0, set(model.end_ids)
        if isinstance(prompt, str):
            self._tokens, self._cut = self._encode(prompt)
        else:
            self._tokens, self._cut, self._turns_cut = list(prompt.tokens), prompt.turns_cut > 0, prompt.turns_cut
            self._stops |= set() if prompt.end_of_turn is None else {prompt.end_of_turn}
        self._prompt_tokens = len(self._tokens)
        self._stream = TextStream(model.tokenizer, settings.stop)
        self._started = time.perf_counter()
        self._windows = 0
        self._slot = self._add(self._tokens)
        self.done: Done | None = None

    @property
    def generated(self) -> int:
        """Tokens written so far."""
        return len(self._tokens) - self._prompt_tokens

    def step(self) -> str:
        """One more token; the text that it completes, which may be empty."""
        (token,) = self._engine.step()
        self._tokens.append(token.token)
        ended = token.token in self._stops
        text = "" if ended else self._stream.feed(token.token)
        if self._stream.stopped:
            return text + self._finish("stop")
        if ended:
            return text + self._finish("end")
        if self.generated >= self._settings.max_new_tokens:
            return text + self._finish("length")
        if token.finished and self._dialogue:
            return text + self._finish("length")
        if token.finished:
            self._windows += 1
            self._slot = self._add(self._tokens[-max(1, self._model.context // 2) :])
        return text

    def cancel(self) -> str:
        """End here; the text that was held back."""
        return self._finish("cancelled")

    def _finish(self, reason: Reason) -> str:
        self._engine.cancel(self._slot)
        self.done = Done.since(
            self._started,
            reason,
            self.generated,
            seed=self.seed,
            prompt_tokens=self._prompt_tokens,
            cut=self._cut,
            turns_cut=self._turns_cut,
        )
        return self._stream.finish(cut=reason in ("length", "cancelled"))

    def _add(self, tokens: list[int]) -> int:
        settings = self._settings
        sampling = Sampling(
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            seed=self.seed + self._windows,
            max_new_tokens=settings.max_new_tokens,
            stop_ids=tuple(sorted(self._stops)),
        )
        return self._engine.add(tokens, sampling)

    def _encode(self, prompt: str) -> tuple[list[int], bool]:
        """The prompt's tokens, as many from its end as leave room to answer, and whether that left some out."""
        context = self._model.context
        seen = prompt[-context * CHARACTERS :]
        start = self._model.tokenizer.start_ids
        tokens = self._model.tokenizer.encode(seen) or ([] if start else [self._model.tokenizer.eos_id])
        room = max(1, room_for_prompt(context, self._settings) - len(start))
        return start + tokens[-room:], len(seen) < len(prompt) or len(tokens) > room
