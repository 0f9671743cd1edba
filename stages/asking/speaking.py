"""What answers in a chat: a decoder that continues a text or a conversation, a Transformer-XL that continues a text, or
a T5 that writes to what it reads."""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import nn

from stages.asking.completion import Completion, open_text_model, room_for_prompt
from stages.asking.dialogue import Dialogue, message_of
from stages.asking.text_stream import TextStream
from stages.asking.text_to_text import Stepwise, Writing
from stages.asking.threads import choose_threads
from stages.data.pairs import said
from stages.data.tokenizer import TextTokenizer
from stages.generate import Engine, Sampling, choose
from stages.models.hf_config import end_ids, read_any_config
from stages.models.t5 import load_t5, prefixes_in
from stages.models.transformer_xl import Continuing, load_transformer_xl
from stages.store.architecture import ModelConfig
from stages.store.chat import Done, Reason, Request, Turn
from stages.store.errors import UserError
from stages.store.specs.chat import Chat
from stages.training.precision import choose_precision

NO_TEMPLATE = "This is a base model: it has no chat template."


class Answering(Protocol):
    """One answer on its way: call `step` for the next piece of text until `done` is there."""

    done: Done | None

    @property
    def generated(self) -> int:
        """Tokens so far."""

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
    kind = read_any_config(folder).kind if (folder / "config.json").is_file() else "decoder"
    if kind == "encoder-decoder":
        return T5Speaker(folder, device, precision, threads)
    if kind == "recurrent decoder":
        return RecurrentSpeaker(folder, device, precision, threads)
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


class Stepping:
    """What the models have in common that are asked for one token after the other: a tokenizer, and who ends a text."""

    def __init__(self, folder: Path, device: str, precision: str) -> None:
        self.tokenizer = TextTokenizer.load(folder)
        if precision == "auto" and device == "cpu":
            precision = "fp32"
        chosen = choose_precision(precision, torch.device(device))
        self.precision, self.dtype = chosen.name, chosen.dtype
        self.ends = {self.tokenizer.eos_id, *end_ids(folder)}

    def settle(self, model: nn.Module, config: ModelConfig, threads: int | None) -> None:
        """Check that model and tokenizer belong together, and choose the CPU threads."""
        if self.tokenizer.vocab_size > config.vocab_size:
            sizes = f"{self.tokenizer.vocab_size:,} tokens and the model {config.vocab_size:,}"
            raise UserError(f"The tokenizer in {self.tokenizer.folder} has {sizes}.", "They do not belong together.")
        self.config = config
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        choose_threads(self.parameters, threads)

    def stop(self) -> None:
        """Nothing is kept between answers."""


class RecurrentSpeaker(Stepping):
    """A Transformer-XL, which continues a text of any length."""

    kind: Literal["base", "chat"] = "base"
    note = ""

    def __init__(self, folder: Path, device: str, precision: str, threads: int | None) -> None:
        super().__init__(folder, device, precision)
        self.model = load_transformer_xl(folder, self.dtype, device)
        self.settle(self.model, self.model.config, threads)

    def start(self, request: Request, settings: Chat) -> Answering:
        if request.messages is not None:
            raise UserError(NO_TEMPLATE, "Send a prompt: the model continues it.")
        read = self.tokenizer.encode(request.prompt or "") or [self.tokenizer.eos_id]
        with torch.inference_mode():
            continuing = Continuing(self.model, [read])
        return SteppedAnswer(continuing, self.tokenizer, self.ends, settings, len(read), cut=False)


class T5Speaker(Stepping):
    """An encoder-decoder. A task's prefix is put before a text that does not begin with it.

    A model that was tuned for a task reads the last message alone; others read the conversation.
    """

    kind: Literal["base", "chat"] = "chat"

    def __init__(self, folder: Path, device: str, precision: str, threads: int | None) -> None:
        super().__init__(folder, device, precision)
        self.model = load_t5(folder, self.dtype, device)
        self.settle(self.model, self.model.config, threads)
        self._prefixes = list(prefixes_in(folder).values())
        self.note = f"Texts are given the prefix {self._prefixes[0]!r}." if len(self._prefixes) == 1 else ""

    def start(self, request: Request, settings: Chat) -> Answering:
        text = (request.prompt if request.messages is None else self._text_of(request.messages)) or ""
        if len(self._prefixes) == 1 and not text.startswith(self._prefixes[0]):
            text = self._prefixes[0] + text
        read, room = self.tokenizer.encode(text), self.config.context - 1
        ids = [*read[:room], self.tokenizer.eos_id]
        with torch.inference_mode():
            writing = Writing(self.model, [ids], torch.tensor([[self.tokenizer.pad_id]]))
        return SteppedAnswer(writing, self.tokenizer, self.ends, settings, len(ids), cut=len(read) > room)

    def _text_of(self, turns: Sequence[Turn]) -> str:
        if not turns or turns[-1].role != "user":
            raise UserError("A conversation must end with the user's turn.")
        return turns[-1].content if self._prefixes else said([message_of(turn) for turn in turns])


class SteppedAnswer:
    """What comes to one text, one token a step."""

    def __init__(
        self,
        writing: Stepwise,
        tokenizer: TextTokenizer,
        ends: Collection[int],
        settings: Chat,
        read: int,
        *,
        cut: bool,
    ) -> None:
        """read: tokens of the prompt; cut: whether it had to be shortened."""
        self._writing, self._ends, self._settings, self._read, self._cut = writing, ends, settings, read, cut
        self.seed = settings.seed if settings.seed is not None else secrets.randbelow(2**31)
        self._dice = torch.Generator().manual_seed(self.seed)
        self._sampling = Sampling(settings.temperature, settings.top_k, settings.top_p)
        self._stream = TextStream(tokenizer, settings.stop)
        self._started = time.perf_counter()
        self.generated = 0
        self.done: Done | None = None

    @torch.inference_mode()
    def step(self) -> str:
        """One more token; the text that it completes, which may be empty."""
        draw = float(torch.rand((), dtype=torch.float64, generator=self._dice))
        chosen_1 = choose(self._writing.logits(), [self._sampling], [draw])
        self._writing.append(chosen_1)
        self.generated += 1
        token = int(chosen_1)
        ended = token in self._ends
        text = "" if ended else self._stream.feed(token)
        if self._stream.stopped:
            return text + self._finish("stop")
        if ended:
            return text + self._finish("end")
        return text + self._finish("length") if self.generated >= self._settings.max_new_tokens else text

    def cancel(self) -> str:
        """End here; the text that was held back."""
        return self._finish("cancelled")

    def _finish(self, reason: Reason) -> str:
        self.done = Done.since(
            self._started, reason, self.generated, seed=self.seed, prompt_tokens=self._read, cut=self._cut
        )
        return self._stream.finish(cut=reason in ("length", "cancelled"))
