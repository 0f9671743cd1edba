"""Chat: a checkpoint in a process of its own, the transcript, and the prompt.

A base model continues the text of the prompt. A chat model is sent the conversation so far, and answers it. The last
turn may be answered several times; the answers are stepped through, and ranked on the spot.
"""

from __future__ import annotations

import asyncio
import datetime
import secrets
import time
from pathlib import Path

import msgspec
from textual import on, work
from textual.app import ComposeResult
from textual.widgets import Static

from stages.store.chat import Done, Facts
from stages.store.errors import UserError
from stages.store.labels import Prompt as Stored
from stages.store.labels.backup import back_up
from stages.store.specs.chat import Chat
from stages.store.specs.retrieval import Retrieval
from workbench.copying import copy_out
from workbench.display import content, line, shortened
from workbench.judging import fresh_scores
from workbench.judging.exchange import MOST, Exchange
from workbench.judging.fresh_scores import judge_of
from workbench.judging.on_the_spot import CHAT, Answer, answer_of, candidates_of, named
from workbench.keys import bind
from workbench.messages import CheckpointChosen
from workbench.screens.base import PlaceScreen
from workbench.screens.going_on import GoingOn
from workbench.screens.rank_answers import RankAnswersScreen, Ranked
from workbench.talking.chat_client import ChatClient
from workbench.talking.chat_wording import described, end_of, settings_line
from workbench.talking.grounding import ground, what_it_holds
from workbench.widgets.chat_transcript import ChatTranscript
from workbench.widgets.prompt import Prompt

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
        bind("chat.sampling", "s", "sampling", "Sampling", "Temperature, top-k, length, seed, stop texts, system."),
        bind("chat.cooler", "minus", "temperature(-0.1)", "Cooler", "Lower the temperature by 0.1.", show=False),
        bind("chat.warmer", "plus", "temperature(0.1)", "Warmer", "Raise the temperature by 0.1.", show=False),
        bind("chat.regenerate", "r", "regenerate", "Again", "Another answer to the last turn, with another seed."),
        bind("chat.rank", "k", "rank", "Rank", "Rank the answers to the last turn; with only one, scroll up."),
        bind("chat.next", "right,l", "step(1)", "Next answer", "The next answer to the last turn.", show=False),
        bind("chat.previous", "left,h", "step(-1)", "Answers", "The answer to the last turn before this one."),
        bind("chat.duel", "v", "duel", "Duel", "Two checkpoints side by side, blind, on the same prompts."),
        bind("chat.more", "m", "more", "More", "Let the model go on from where the last answer ended."),
        bind("chat.copy", "y", "copy", "Copy", "Copy the last answer."),
        bind("chat.clear", "x", "clear", "Clear", "Empty the transcript."),
        bind("chat.source", "f", "source", "Source", "Answer from a folder or a dataset: passages that fit."),
        bind("chat.restart", "L", "restart", "Restart", "Load the model again.", show=False),
    ]

    def __init__(self, checkpoint: str | None = None) -> None:
        super().__init__()
        self._checkpoint = checkpoint
        self._client = ChatClient()
        self._going_on = GoingOn()
        self._begun = False
        """Whether the checkpoint at hand has been asked something."""
        self._loaded_from: Path | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._loading = self._answering = False
        self._exchange: Exchange | None = None
        self._origin = f"chat:{secrets.token_hex(6)}"
        self._numbered = 0
        self._ranked = False
        self._began = self._rated = 0.0
        self.sampling = Chat()
        self.retrieval = Retrieval()

    def compose_body(self) -> ComposeResult:
        yield Static(id="model")
        yield ChatTranscript(id="transcript")
        yield Static(id="sampling")
        yield Prompt(PLACEHOLDER, id="prompt")

    def on_mount(self) -> None:
        self.sampling, self.retrieval = self.workbench.settings.chat, self.workbench.settings.retrieval
        self._show_sampling()
        if self._checkpoint is None:
            self._show_model("No model is loaded. o chooses a checkpoint.")
            self.transcript.focus()  # so that o and the places' keys are no text
            self.call_after_refresh(self.action_checkpoint)
        else:
            self.load(self._checkpoint)

    def on_screen_resume(self) -> None:
        self._look_ahead()

    async def on_unmount(self) -> None:
        if self._watcher:
            self._watcher.cancel()
        await self._client.close()
        if self._ranked:
            await asyncio.to_thread(back_up, self.workbench.workspace.labels)

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
        self._going_on, self._begun, self._loaded_from = GoingOn(), False, None
        self._show_placeholder()
        self._show_model(f"Loading {checkpoint} …")
        try:
            self._loaded_from, facts = await self._client.load(self.workbench.workspace, checkpoint)
        except UserError as error:
            self._tell(error)
            return False
        finally:
            self._loading = False
        self._show_model(described(facts))
        self._show_placeholder()
        self._look_ahead()
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
        if event.text:
            self.query_one(Prompt).take(event.text)
            self._begin(event.text)
        else:
            self._go_on()

    def _go_on(self) -> None:
        """Enter with nothing written: ask what is proposed, go on with the life, or have a base model just write."""
        ahead = self._going_on
        if not self._begun and ahead.proposal:
            self._begin(ahead.proposal)
        elif self._begun and ahead.step is not None:
            self.workbench.open_step(ahead.step)
        elif self._client.talks:
            self.app.notify("Write a message first.")
        else:
            self._begin("")

    @work(exclusive=True, group="ahead")
    async def _look_ahead(self) -> None:
        """Find out what enter is to do while nothing is written."""
        if self._loaded_from is not None:
            self._going_on = await GoingOn.of(self.workbench, self._loaded_from, talks=self._client.talks)
            self._show_placeholder()

    def _show_placeholder(self) -> None:
        otherwise = MESSAGE if self._client.talks else PLACEHOLDER
        shown = self._going_on.placeholder(otherwise, begun=self._begun)
        self.query_one(Prompt).placeholder = shown

    @work(exclusive=True, group="chat")
    async def _begin(self, text: str) -> None:
        """A new turn: what was sent, and the answer to it or what continues it."""
        if not await self._loaded():
            return
        self._begun = True
        talks = self._client.talks
        before = self._exchange.after() if self._exchange is not None and talks else []
        self._exchange = Exchange(text, before, system=self.sampling.system, talks=talks)
        self.transcript.ask(self._exchange)
        if self.retrieval.source is not None and not await self._look_up(self._exchange):
            return
        if (answer := await self._written(self._exchange, self.sampling)) is not None:
            self._exchange.add(answer)
        self.refresh_bindings()
        self._show_placeholder()

    async def _look_up(self, exchange: Exchange) -> bool:
        """Give the question passages of the source; False when that failed, which is told."""
        facts = self._client.facts
        assert facts is not None, "a model is loaded"
        try:
            await ground(exchange, self.workbench.desk, self.workbench.workspace, self.retrieval, facts.context)
        except UserError as error:
            self._tell(error)
            return False
        return True

    @work(exclusive=True, group="chat")
    async def _again(self, exchange: Exchange) -> None:
        """Another answer to the last turn, in the place of the one shown."""
        if not await self._loaded():
            return
        if exchange.talks != self._client.talks:
            self.app.notify("A base model continues text, a chat model answers: send the text to this one anew.")
            return
        self.transcript.cut(exchange.mark)
        seed = self.sampling.seed
        another = None if seed is None else (seed + len(exchange.answers)) % 2**31
        answer = await self._written(exchange, msgspec.structs.replace(self.sampling, seed=another))
        if answer is not None:
            exchange.add(answer)
            self._show_answer(exchange)

    @work(exclusive=True, group="chat")
    async def _further(self, exchange: Exchange) -> None:
        """Go on from the end of the answer: for models that continue text."""
        if exchange.answer is None or not await self._loaded():
            return
        so_far = exchange.given + exchange.answer.text
        self.transcript.start_block()
        self.transcript.write(f"… {end_of(so_far)}", "prompt")
        if (answer := await self._written(exchange, self.sampling, so_far=so_far)) is not None:
            exchange.extend(answer)

    async def _loaded(self) -> bool:
        """Have a process that answers: the one at hand, or a new one where it ended."""
        return self._client.alive or bool(self._checkpoint and await self._open(self._checkpoint))

    async def _written(self, exchange: Exchange, sampling: Chat, so_far: str = "") -> Answer | None:
        """Have the turn answered, or `so_far` continued, writing what comes as it comes; None when it failed."""
        transcript, facts, text = self.transcript, self._client.facts, ""
        assert facts is not None, "a model is loaded"
        self._answering, self._began, self._rated = True, time.monotonic(), 0.0
        transcript.add_class("-live")
        self.refresh_bindings()
        said = exchange.asked if exchange.talks else so_far or exchange.given
        try:
            async for piece in self._client.complete(said, sampling):
                if isinstance(piece, Done):
                    transcript.end_answer(exchange, piece)
                    return answer_of(text, piece, facts, sampling)
                text += piece
                transcript.write(piece, "answer")
                self._show_rate()
        except UserError as error:
            if exchange.answer is not None and not so_far:
                self._show_answer(exchange)
            self._tell(error)
        finally:
            self._answering = False
            transcript.remove_class("-live")
            self._show_sampling()
        return None

    def _show_answer(self, exchange: Exchange) -> None:
        self.transcript.show_answer(exchange)
        self.refresh_bindings()

    @property
    def transcript(self) -> ChatTranscript:
        return self.query_one(ChatTranscript)

    def offers(self, action: str) -> bool:
        """Name only what there is something for."""
        match action:
            case "more":
                return not self.transcript.is_empty and not self._client.talks
            case "copy" | "clear":
                return not self.transcript.is_empty
            case "regenerate":
                return self._exchange is not None and not self._answering
            case "rank" | "step(-1)":
                return self._exchange is not None and len(self._exchange.answers) > 1
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
            self.transcript.focus()

    def action_write(self) -> None:
        self.query_one(Prompt).focus()

    def action_checkpoint(self) -> None:
        from workbench.screens.checkpoints import CheckpointScreen

        if self.is_current:
            self.app.push_screen(CheckpointScreen(self.workbench.workspace, endpoints=True), self._chosen)

    def action_sampling(self) -> None:
        from workbench.screens.sampling import SamplingScreen

        self.app.push_screen(SamplingScreen(self.sampling), self._set_sampling)

    def action_source(self) -> None:
        from workbench.screens.source import SourceScreen

        self.app.push_screen(SourceScreen(self.workbench.workspace, self.retrieval), self._set_retrieval)

    def action_temperature(self, by: float) -> None:
        temperature = round(min(10.0, max(0.0, self.sampling.temperature + by)), 2)
        self._set_sampling(msgspec.structs.replace(self.sampling, temperature=temperature))

    def action_regenerate(self) -> None:
        """Another answer to the last turn; where the model is gone, load it again."""
        exchange = self._exchange
        if self._checkpoint is not None and not self._client.alive and not self._loading:
            self.action_restart()
        elif exchange is None:
            self.app.notify("There is nothing to answer again yet.")
        elif len(exchange.answers) >= MOST:
            self.app.notify(f"There are {MOST} answers, as many as can be ranked: k ranks them.")
        elif not self._busy():
            if self.sampling.temperature == 0:
                self.app.notify("At temperature 0 a model says the same each time: + makes it warmer.")
            self._again(exchange)

    def action_step(self, by: int) -> None:
        """Show another of the answers; the conversation goes on from the one shown."""
        if self._exchange is not None and not self._answering and self._exchange.step(by):
            self._show_answer(self._exchange)

    def action_rank(self) -> None:
        """Rank the answers to the last turn; with a single one k scrolls, as elsewhere."""
        exchange = self._exchange
        if exchange is None or len(exchange.answers) < 2:
            self.transcript.action_scroll_up()
            return
        if self._answering:
            return
        candidates = candidates_of(exchange.answers, self._origin, self._numbered)
        if len(candidates) < 2:
            self.app.notify("The answers are all the same: r writes another, + makes the model warmer.")
            return
        self._numbered += len(exchange.answers)
        prompt = exchange.as_prompt()
        self.app.push_screen(
            RankAnswersScreen(prompt, candidates, lambda ranked: self._was_ranked(exchange, prompt, ranked))
        )

    def _was_ranked(self, exchange: Exchange, prompt: Stored, ranked: Ranked) -> None:
        """Go on from the answer that was best, and say who wrote what."""
        self._ranked = True
        exchange.ranked = f"ranked {ranked} · saved {datetime.datetime.now():%H:%M:%S} in the label set {CHAT}"
        texts = [one.text for one in exchange.answers]
        exchange.at = texts.index(ranked.best) if ranked.best in texts else exchange.at
        if exchange is self._exchange:
            self._show_answer(exchange)
        if exchange.talks and not ranked.by_model:
            self._have_scored(exchange, prompt, ranked)

    @work(exclusive=True, group="scores")
    async def _have_scored(self, exchange: Exchange, prompt: Stored, ranked: Ranked) -> None:
        """Add to what was said of the ranking how a reward model orders the same answers, if there is one."""
        said, wanted = exchange.ranked, self.workbench.settings.labels.reward_model
        try:
            judge = await asyncio.to_thread(judge_of, self.workbench.workspace, wanted)
            if judge is None:
                return
            texts = [one.text for one in ranked.shown]
            told = await fresh_scores.told(self.workbench.desk, judge, prompt, texts, ranked.label.ranks or [])
        except UserError as error:
            told = f"no reward model's order: {error.title}"
        if exchange.ranked == said:  # nothing was answered or ranked anew since
            exchange.ranked = f"{said}\n{told}"
            if exchange is self._exchange and not self._answering:
                self._show_answer(exchange)

    def action_duel(self) -> None:
        """Two checkpoints side by side, the one loaded here among them."""
        from workbench.screens.duel import DuelScreen

        self.app.push_screen(DuelScreen(self._checkpoint, sampling=self.sampling))

    def action_more(self) -> None:
        """Go on from the end of the last answer."""
        if self._client.talks:
            self.app.notify("A chat model ends its answer by itself: ask it to go on.")
        elif self._exchange is None or self._exchange.answer is None:
            self.app.notify("There is no answer to go on from yet.")
        elif not self._busy():
            self._further(self._exchange)

    def action_copy(self) -> None:
        """Copy the last answer as it came, by OSC 52 and into a file for terminals that do not know it."""
        answer = self._exchange.answer if self._exchange is not None else None
        if answer is None:
            self.app.notify("There is no answer to copy yet.")
            return
        copy_out(self.app, answer.text)

    def action_clear(self) -> None:
        if not self._answering:
            self.transcript.clear()
            self._exchange = None
            self.refresh_bindings()
            self._show_placeholder()

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

    def _set_retrieval(self, retrieval: Retrieval | None) -> None:
        if retrieval is not None:
            self.retrieval = retrieval
            self._show_sampling()
            if retrieval.source is not None:
                self._look_at_source(retrieval.source)

    @work(exclusive=True, group="source")
    async def _look_at_source(self, source: str) -> None:
        """Say what a source holds."""
        try:
            told = await what_it_holds(self.workbench.desk, self.workbench.workspace, source)
        except UserError as error:
            self.workbench.show_error(error)
            return
        self.app.notify(told, title=f"Answers come from {source}")

    def _note_change(self, facts: Facts) -> None:
        if facts.note or not self.transcript.is_empty:
            self.transcript.start_block()
            self.transcript.write(f"{named(facts)} is loaded. {facts.note}".strip(), "note")

    def _tell(self, error: UserError) -> None:
        """An error of the process or the checkpoint: in the transcript, and above it until a model is loaded again."""
        if not self._client.alive:
            self._show_model(f"No model is loaded: {error.title} r loads it again, o chooses another.", wrong=True)
        self.transcript.start_block()
        self.transcript.write(str(error), "error")

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
        source = f" · from {shortened(self.retrieval.source, 24)}" if self.retrieval.source else ""
        self.query_one("#sampling", Static).update(content(settings_line(self.sampling) + source))
