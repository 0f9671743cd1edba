"""What answers in a chat: a decoder that continues a text or a conversation, or a T5 that writes to what it reads."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

import torch

from stages.completion import SMALL, Completion, open_text_model, room_for_prompt
from stages.data.pairs import said
from stages.data.tokenizer import TextTokenizer
from stages.dialogue import Dialogue, message_of
from stages.generate import Engine, Sampling, TextStream, choose
from stages.models.hf_config import end_ids, read_any_config
from stages.models.t5 import load_t5, prefixes_in
from stages.precision import choose_precision
from stages.store.architecture import ModelConfig
from stages.store.chat import Done, Reason, Request, Turn
from stages.store.errors import UserError
from stages.store.specs.chat import Chat
from stages.text_to_text import Writing


class Answering(Protocol):
    """One answer on its way: call `step` for the next piece of text until `done` is there."""

    done: Done | None

    @property
    def generated(self) -> int: ...
    def step(self) -> str: ...
    def cancel(self) -> str: ...


class Speaker(Protocol):
    """A model that is loaded and answers one request at a time."""

    config: ModelConfig
    kind: Literal["base", "chat"]
    precision: str
    parameters: int
    note: str

    def start(self, request: Request, settings: Chat) -> Answering:
        """Begin to answer. Raises UserError for a request that this model cannot answer."""

    def stop(self) -> None:
        """Drop what is being answered."""


def open_speaker(folder: Path, device: str, *, precision: str = "auto", threads: int | None = None) -> Speaker:
    """Load a checkpoint on `device` (cpu or cuda). On the CPU auto means fp32. UserError as for the parts."""
    if (folder / "config.json").is_file() and read_any_config(folder).kind == "encoder-decoder":
        return T5Speaker(folder, device, precision, threads)
    return DecoderSpeaker(folder, device, precision, threads)


class DecoderSpeaker:
    """A decoder with its chat template, if it has one."""

    note = ""

    def __init__(self, folder: Path, device: str, precision: str, threads: int | None) -> None:
        self._model = open_text_model(folder, device, precision=precision, threads=threads)
        self._engine = Engine(self._model.decoder, max_slots=1)
        self._dialogue = Dialogue.of(folder)
        self.config, self.precision = self._model.decoder.config, self._model.precision
        self.parameters = self._model.parameters
        self.kind: Literal["base", "chat"] = "chat" if self._dialogue else "base"

    def start(self, request: Request, settings: Chat) -> Answering:
        if request.messages is None:
            return Completion(self._model, self._engine, request.prompt or "", settings)
        if self._dialogue is None:
            raise UserError("This is a base model: it has no chat template.", "Send a prompt: the model continues it.")
        room = room_for_prompt(self._model.context, settings)
        return Completion(self._model, self._engine, self._dialogue.prompt(request.messages, room), settings)

    def stop(self) -> None:
        for slot in self._engine.active:
            self._engine.cancel(slot)


class T5Speaker:
    """An encoder-decoder. A task's prefix is put before a text that does not begin with it.

    A model that was tuned for a task reads the last message alone; others read the conversation.
    """

    kind: Literal["base", "chat"] = "chat"

    def __init__(self, folder: Path, device: str, precision: str, threads: int | None) -> None:
        self.tokenizer = TextTokenizer.load(folder)
        if precision == "auto" and device == "cpu":
            precision = "fp32"
        chosen = choose_precision(precision, torch.device(device))
        self.model = load_t5(folder, chosen.dtype, device)
        self.config, self.precision = self.model.config, chosen.name
        if self.tokenizer.vocab_size > self.config.vocab_size:
            sizes = f"{self.tokenizer.vocab_size:,} tokens and the model {self.config.vocab_size:,}"
            raise UserError(f"The tokenizer in {folder} has {sizes}.", "They do not belong together.")
        self.parameters = sum(parameter.numel() for parameter in self.model.parameters())
        self.ends = {self.tokenizer.eos_id, *end_ids(folder)}
        self._prefixes = list(prefixes_in(folder).values())
        self.note = f"Texts are given the prefix {self._prefixes[0]!r}." if len(self._prefixes) == 1 else ""
        torch.set_num_threads(threads or (1 if self.parameters < SMALL else min(torch.get_num_threads(), 8)))

    def start(self, request: Request, settings: Chat) -> Answering:
        text = request.prompt if request.messages is None else self._text_of(request.messages)
        if len(self._prefixes) == 1 and not (text or "").startswith(self._prefixes[0]):
            text = self._prefixes[0] + (text or "")
        read = self.tokenizer.encode(text or "")
        room = self.config.context - 1
        return T5Answer(self, [*read[:room], self.tokenizer.eos_id], settings, cut=len(read) > room)

    def stop(self) -> None:
        """Nothing is kept between answers."""

    def _text_of(self, turns: Sequence[Turn]) -> str:
        if not turns or turns[-1].role != "user":
            raise UserError("A conversation must end with the user's turn.")
        return turns[-1].content if self._prefixes else said([message_of(turn) for turn in turns])


class T5Answer:
    """What a T5 writes to one text."""

    def __init__(self, speaker: T5Speaker, read: list[int], settings: Chat, *, cut: bool) -> None:
        self._speaker, self._settings, self._read, self._cut = speaker, settings, read, cut
        self.seed = settings.seed if settings.seed is not None else secrets.randbelow(2**31)
        self._dice = torch.Generator().manual_seed(self.seed)
        self._sampling = Sampling(settings.temperature, settings.top_k, settings.top_p)
        self._stream = TextStream(speaker.tokenizer, settings.stop)
        self._started = time.perf_counter()
        with torch.inference_mode():
            self._writing = Writing(speaker.model, [read], torch.tensor([[speaker.tokenizer.pad_id]]))
        self._written = 0
        self.done: Done | None = None

    @property
    def generated(self) -> int:
        return self._written

    @torch.inference_mode()
    def step(self) -> str:
        """One more token; the text that it completes, which may be empty."""
        draw = float(torch.rand((), dtype=torch.float64, generator=self._dice))
        chosen_1 = choose(self._writing.logits(), [self._sampling], [draw])
        self._writing.append(chosen_1)
        self._written += 1
        token = int(chosen_1)
        ended = token in self._speaker.ends
        text = "" if ended else self._stream.feed(token)
        if self._stream.stopped:
            return text + self._finish("stop")
        if ended:
            return text + self._finish("end")
        return text + self._finish("length") if self._written >= self._settings.max_new_tokens else text

    def cancel(self) -> str:
        """End here; the text that was held back."""
        return self._finish("cancelled")

    def _finish(self, reason: Reason) -> str:
        seconds = time.perf_counter() - self._started
        self.done = Done(
            reason=reason,
            tokens=self._written,
            seconds=seconds,
            tokens_per_s=self._written / seconds if seconds > 0 else 0.0,
            seed=self.seed,
            prompt_tokens=len(self._read),
            cut=self._cut,
        )
        rest = self._stream.finish()
        return rest.rstrip("\ufffd") if reason in ("length", "cancelled") else rest
