"""Chat: a checkpoint in a process of its own, the transcript, and the prompt.

A base model continues the text of the prompt. A chat model is sent the conversation so far, and answers it.
"""

from __future__ import annotations

import asyncio
import time

import msgspec
from textual import on, work
from textual.app import ComposeResult
from textual.widgets import Static

from stages.store.chat import REASONS, Done, Facts, Turn, well_formed
from stages.store.checkpoints import resolve_checkpoint
from stages.store.errors import UserError
from stages.store.files import write_atomic
from stages.store.specs.chat import Chat
from stages.store.workspace import state_folder
from workbench.chat_client import ChatClient, system_turn
from workbench.display import content, line
from workbench.keys import bind
from workbench.messages import CheckpointChosen
from workbench.screens.base import PlaceScreen
from workbench.widgets.prompt import Prompt
from workbench.widgets.transcript import Transcript

OSC52_LIMIT = 74_000
"""Bytes of text beyond which terminals drop what is sent to their clipboard."""
RATE_INTERVAL = 0.25
"""Seconds between two figures of how fast an answer is written."""
PLACEHOLDER = "Text for the model to continue"
MESSAGE = "Your message"


class ChatScreen(PlaceScreen):
    """Text goes in, the model continues or answers it. Transcript and conversation survive a change of checkpoint."""

    PLACE = "chat"
    CSS_PATH = "chat.tcss"
    AUTO_FOCUS = "Prompt"
    BINDINGS = [
        bind("chat.leave", "escape", "leave", "Leave", "End the answer; or leave the input, so that letters are keys."),
        bind("chat.write", "i,enter", "write", "Write", "Back to the input."),
        bind("chat.checkpoint", "o", "checkpoint", "Checkpoint", "Choose another checkpoint; the text stays."),
        bind(
            "chat.sampling",
            "s",
            "sampling",
            "Sampling",
            "Temperature, top-k, length, seed, stop texts, system.",
        ),
        bind("chat.cooler", "minus", "temperature(-0.1)", "Cooler", "Lower the temperature by 0.1.", show=False),
        bind("chat.warmer", "plus", "temperature(0.1)", "Warmer", "Raise the temperature by 0.1.", show=False),
        bind("chat.more", "m", "more", "More", "Let the model go on from where the last answer ended."),
        bind("chat.copy", "y", "copy", "Copy", "Copy the last answer."),
        bind("chat.clear", "x", "clear", "Clear", "Empty the transcript."),
        bind("chat.restart", "r", "restart", "Restart", "Load the model again.", show=False),
    ]

    def __init__(self, checkpoint: str | None = None) -> None:
        super().__init__()
        self._checkpoint = checkpoint
        self._client = ChatClient()
        self._watcher: asyncio.Task[None] | None = None
        self._loading = self._answering = False
        self._prompt = self._answer = ""
        self._turns: list[Turn] = []
        self._began = self._rated = 0.0
        self.sampling = Chat()

    def compose_body(self) -> ComposeResult:
        yield Static(id="model")
        yield Transcript(id="transcript")
        yield Static(id="sampling")
        yield Prompt(PLACEHOLDER, id="prompt")

    def on_mount(self) -> None:
        self.sampling = self.workbench.settings.chat
        self._show_sampling()
        if self._checkpoint is None:
            self._show_model("No model is loaded. o chooses a checkpoint.")
            self.query_one(Transcript).focus()  # so that o and the places' keys are no text
            self.call_after_refresh(self.action_checkpoint)
        else:
            self.load(self._checkpoint)

    async def on_unmount(self) -> None:
        if self._watcher:
            self._watcher.cancel()
        await self._client.close()

    @on(CheckpointChosen)
    def _checkpoint_chosen(self, event: CheckpointChosen) -> None:
        self._chosen(event.checkpoint)

    @work(exclusive=True, group="chat")
    async def load(self, checkpoint: str) -> None:
        """Start a process on this checkpoint, in place of the one before."""
        self._checkpoint = checkpoint
        await self._open(checkpoint)

    async def _open(self, checkpoint: str) -> bool:
        self._loading, self._answering = True, False
        self._show_model(f"Loading {checkpoint} …")
        try:
            found = await asyncio.to_thread(resolve_checkpoint, self.workbench.workspace, checkpoint)
            facts = await self._client.open(found.path)
        except UserError as error:
            self._tell(error)
            return False
        finally:
            self._loading = False
        self._show_model(_described(facts))
        self.query_one(Prompt).placeholder = MESSAGE if facts.kind == "chat" else PLACEHOLDER
        self.show_trail(f"{facts.name}@{facts.step}" if facts.step else facts.name)
        self._note_change(facts)
        self._watcher = asyncio.create_task(self._watch())
        return True

    async def _watch(self) -> None:
        """Say it when the process ends by itself."""
        death = await self._client.watch()
        if death is not None:
            self._tell(death)

    @on(Prompt.Sent)
    def _sent(self, event: Prompt.Sent) -> None:
        if self._busy():
            return
        self.query_one(Prompt).take(event.text)
        self._prompt, self._answer = event.text, ""
        self._continue(event.text, asked=True)

    @work(exclusive=True, group="chat")
    async def _continue(self, shown: str, *, asked: bool = False) -> None:
        """Have prompt and answer continued, or the conversation answered: write `shown`, and behind it what comes."""
        transcript = self.query_one(Transcript)
        if not self._client.alive and not (self._checkpoint and await self._open(self._checkpoint)):
            return
        self._answering, self._began, self._rated = True, time.monotonic(), 0.0
        conversation = [*self._turns, Turn("user", self._prompt)] if self._talks and asked else None
        transcript.start_block()
        if conversation:
            transcript.write("you\n", "heading")
        transcript.write(shown, "prompt")
        if conversation:
            transcript.write("\nassistant\n", "heading")
        transcript.add_class("-live")
        try:
            said = [*system_turn(self.sampling), *conversation] if conversation else self._prompt + self._answer
            async for piece in self._client.complete(said, self.sampling):
                if isinstance(piece, Done):
                    transcript.write(f"\n{_outcome(piece)}", "note")
                else:
                    self._answer += piece
                    transcript.write(piece, "answer")
                    self._show_rate()
            if conversation:
                self._turns = [*conversation, Turn("assistant", self._answer)]
        except UserError as error:
            self._tell(error)
        finally:
            self._answering = False
            transcript.remove_class("-live")
            self._show_sampling()

    @property
    def _talks(self) -> bool:
        """Whether the model answers a conversation, rather than continuing text."""
        return self._client.facts is not None and self._client.facts.kind == "chat"

    def offers(self, action: str) -> bool:
        """Name only what there is something for."""
        match action:
            case "more":
                return not self.query_one(Transcript).is_empty and not self._talks
            case "copy" | "clear":
                return not self.query_one(Transcript).is_empty
            case "write":
                return self.focused is not self.query_one(Prompt)
            case "leave":
                return self._answering or self.focused is self.query_one(Prompt)
        return True

    async def action_leave(self) -> None:
        """End the answer that is being written; with none, leave the input."""
        if self._answering:
            await self._client.cancel()
        elif self.focused is self.query_one(Prompt):
            self.query_one(Transcript).focus()

    def action_write(self) -> None:
        self.query_one(Prompt).focus()

    def action_checkpoint(self) -> None:
        from workbench.screens.checkpoints import CheckpointScreen

        if self.is_current:
            self.app.push_screen(CheckpointScreen(self.workbench.workspace), self._chosen)

    def action_sampling(self) -> None:
        from workbench.screens.sampling import SamplingScreen

        self.app.push_screen(SamplingScreen(self.sampling), self._set_sampling)

    def action_temperature(self, by: float) -> None:
        temperature = round(min(10.0, max(0.0, self.sampling.temperature + by)), 2)
        self._set_sampling(msgspec.structs.replace(self.sampling, temperature=temperature))

    def action_more(self) -> None:
        """Go on from the end of the last answer."""
        if self._talks:
            self.app.notify("A chat model ends its answer by itself: ask it to go on.")
        elif not self._prompt and not self._answer:
            self.app.notify("There is no answer to go on from yet.")
        elif not self._busy():
            self._continue(f"… {_end_of(self._prompt + self._answer)}")

    def action_copy(self) -> None:
        """Copy the last answer as it came, by OSC 52 and into a file for terminals that do not know it."""
        if not self._answer:
            self.app.notify("There is no answer to copy yet.")
            return
        data = well_formed(self._answer).encode()
        path = state_folder() / "copied.txt"
        told = []
        if len(data) <= OSC52_LIMIT:
            self.app.copy_to_clipboard(data.decode())
            told.append("Sent to the terminal's clipboard (OSC 52).")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, data, durable=False)
            told.append(f"Written to {path}.")
        except (OSError, UserError) as error:
            told.append(f"Not written to {path}: {error}.")
        self.app.notify(" ".join(told), title=f"{len(self._answer):,} characters")

    def action_clear(self) -> None:
        if not self._answering:
            self.query_one(Transcript).clear()
            self._prompt = self._answer = ""
            self._turns = []

    def action_restart(self) -> None:
        if self._checkpoint is None:
            self.action_checkpoint()
        elif not self._busy():
            self.load(self._checkpoint)

    def _busy(self) -> bool:
        """Whether a request has to wait, and say so."""
        if self._loading:
            self.app.notify("The model is still loading.")
        elif self._answering:
            self.app.notify("An answer is being written; esc ends it.")
        elif self._checkpoint is None:
            self.app.notify("No model is loaded. esc, then o, chooses a checkpoint.")
        return self._loading or self._answering or self._checkpoint is None

    def _chosen(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            self.query_one(Prompt).focus()
            self.load(checkpoint)

    def _set_sampling(self, sampling: Chat | None) -> None:
        if sampling is not None:
            self.sampling = sampling
            self._show_sampling()

    def _note_change(self, facts: Facts) -> None:
        transcript = self.query_one(Transcript)
        if facts.note or not transcript.is_empty:
            transcript.start_block()
            transcript.write(f"{facts.name}@{facts.step} is loaded. {facts.note}".strip(), "note")

    def _tell(self, error: UserError) -> None:
        """An error of the process or the checkpoint: in the transcript, and above it until a model is loaded again."""
        if not self._client.alive:
            self._show_model(f"No model is loaded: {error.title} r loads it again, o chooses another.", wrong=True)
        transcript = self.query_one(Transcript)
        transcript.start_block()
        transcript.write(str(error), "error")

    def _show_model(self, text: str, *, wrong: bool = False) -> None:
        shown = self.query_one("#model", Static)
        shown.set_class(wrong, "-wrong")
        shown.update(line(text))

    def _show_rate(self) -> None:
        """While an answer is written, how fast: in place of the settings, now and then."""
        now = time.monotonic()
        if now - self._rated >= RATE_INTERVAL:
            self._rated = now
            tokens = self._client.tokens
            rate = f"{tokens / max(now - self._began, 1e-3):,.0f} tokens/s"
            shown = f"writing · {tokens:,} of up to {self.sampling.max_new_tokens:,} tokens · {rate} · esc ends it"
            self.query_one("#sampling", Static).update(content(shown), layout=False)

    def _show_sampling(self) -> None:
        self.query_one("#sampling", Static).update(content(_settings_line(self.sampling)))


def _described(facts: Facts) -> str:
    kind = "base model: it continues your text" if facts.kind == "base" else "chat model: it answers you"
    count = facts.parameters
    size = f"{count:,}" if count < 1e5 else f"{count / 1e6:.1f} M" if count < 1e9 else f"{count / 1e9:.2f} B"
    return f"{kind} · {size} parameters · context {facts.context:,} · {facts.device} {facts.precision}"


def _outcome(done: Done) -> str:
    parts = [f"{done.tokens:,} tokens", f"{done.tokens_per_s:,.0f} tokens/s", REASONS[done.reason], f"seed {done.seed}"]
    if done.turns_cut:
        parts.append(f"the first {done.turns_cut:,} messages no longer fit")
    elif done.cut:
        parts.append(f"only the last {done.prompt_tokens:,} tokens of the text fitted")
    return " · ".join(parts)


def _settings_line(settings: Chat) -> str:
    parts = [
        f"temperature {settings.temperature:g}",
        f"top-k {settings.top_k or 'all'}",
        f"top-p {settings.top_p:g}",
        f"up to {settings.max_new_tokens:,} tokens",
        "seed drawn" if settings.seed is None else f"seed {settings.seed}",
    ]
    parts += [f"stop {stop!r}" for stop in settings.stop]
    return " · ".join(parts + (["system message"] if settings.system else []))


def _end_of(text: str, characters: int = 60) -> str:
    """The end of a text on one line."""
    return " ".join(text[-characters:].split())
