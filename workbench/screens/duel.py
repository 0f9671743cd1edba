"""A duel: two checkpoints answer the same prompt, and one votes without knowing which is which.

base@2000 against sft@400 · temperature 0.8 · prompts from questions
prompt ──────────────────────────────────────────────────────────────
│ What is the capital of Jorvia?                                    │
─────────────────────────────────────────────────────────────────────
1 ────────────────────────────────╮╭ 2 ──────────────────────────────
│ The capital of Jorvia is Ivren.  ││ Ivren
─────────────── 31 chars · ended ─╯╰────────────── 5 chars · ended ─
1 the first is better · 2 the second · = a tie · x both bad
saved 12:01:07: the first · 1 sft@400, 2 base@2000
base@2000 preferred in 38.5 % (17.7–64.5) of 13 judged, ties as halves
"""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import Sequence

from textual import on, work
from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from stages.store.chat import Turn
from stages.store.datasets import list_datasets
from stages.store.errors import UserError
from stages.store.labels import Prompt as Asks
from stages.store.specs.chat import Chat
from workbench.display import content, line
from workbench.judging.drawing import Drawing
from workbench.judging.duel import Duel, Round
from workbench.judging.judge_lines import conversation
from workbench.judging.labelling import AWAY, annotator_name
from workbench.judging.on_the_spot import DUELS, prompt_of
from workbench.keys import bind
from workbench.screens.base import PlaceScreen
from workbench.widgets.contenders import Contenders, QuestionPane
from workbench.widgets.prompt import Prompt

KINDS = ("prompts", "chat", "preference")
PLACEHOLDER = "A prompt for both; enter sends it"
HINT = "1 the first is better · 2 the second · = a tie · x both bad"
ALIKE = "Both wrote the same: nothing to vote on."


class DuelScreen(PlaceScreen):
    """Prompts are typed, or drawn from a dataset. A vote is stored before the next prompt is sent."""

    PLACE = "chat"
    CSS_PATH = "contenders.tcss"
    AUTO_FOCUS = ""
    BINDINGS = [
        bind("duel.1", "1", "vote('1')", "First", "The first answer is better: saved at once."),
        bind("duel.2", "2", "vote('2')", "Second", "The second answer is better: saved at once."),
        bind("duel.tie", "equals_sign", "vote('=')", "Tie", "Both are alike: saved at once."),
        bind("duel.bad", "x", "vote('x')", "Both bad", "Neither is any good: saved at once, counts as a tie."),
        bind("duel.next", "n", "next", "Next", "The next prompt of the dataset, without a vote on this one."),
        bind("duel.write", "i", "write", "Write", "Type a prompt."),
        bind("duel.dataset", "p", "dataset", "Prompts", "Draw prompts from a dataset."),
        bind("duel.undo", "u", "undo", "Undo", "Take the last vote back and show its answers again."),
        bind("duel.table", "t", "table", "Elo", "Elo and win rates of all checkpoints, along their lineage."),
        bind("duel.sampling", "s", "sampling", "Sampling", "Temperature, top-k, length, seed, stop texts.", show=False),
        bind("duel.checkpoints", "o", "checkpoints", "Checkpoints", "Set two others against each other.", show=False),
        bind(
            "duel.differences",
            "d",
            "differences",
            "Differences",
            "Mark what differs from the answer in focus.",
            show=False,
        ),
        bind("duel.right", "l,right,tab", "move(1)", "Right", "To the other answer.", show=False),
        bind("duel.left", "h,left,shift+tab", "move(-1)", "Left", "To the other answer.", show=False),
        bind("duel.leave", "escape", "leave", "Leave", "End the answers; leave the input; then leave the duel."),
    ]

    def __init__(self, first: str | None = None, second: str | None = None, sampling: Chat | None = None) -> None:
        super().__init__()
        self._first, self._second = first, second
        self._given = sampling
        self.sampling = Chat()
        self.duel: Duel | None = None
        self.round: Round | None = None
        """What is before the person, and not voted on yet."""
        self.drawing: Drawing | None = None
        """Where prompts come from that nobody types."""
        self._turn = 0
        self._writing = self._saving = False
        self._began = 0.0
        self._last = Content()

    def compose_body(self) -> ComposeResult:
        yield Static(id="model")
        with QuestionPane(classes="pane", id="asked") as asked:
            asked.border_title = "prompt"
            yield Static(id="prompt")
        yield Contenders(id="contenders")
        yield Static(id="order")
        yield Static(id="saved")
        yield Static(id="rate")
        yield Prompt(PLACEHOLDER, id="typed")

    def on_mount(self) -> None:
        self.sampling = self._given or self.workbench.settings.chat
        self.query_one(QuestionPane).focus()
        self.show_trail("duel")
        self.poll(0.5, self._show_progress)
        if self._first is None or self._second is None:
            self.call_after_refresh(self.action_checkpoints, keep_first=True)
        else:
            self._open([self._first, self._second])

    async def on_unmount(self) -> None:
        if self.duel is not None:
            await self.duel.close()

    def action_checkpoints(self, keep_first: bool = False) -> None:
        """Ask for the first, unless it is known, and for the second."""
        from workbench.screens.checkpoints import CheckpointScreen

        workspace, kept = self.workbench.workspace, self._first if keep_first else None

        def chosen(first: str | None) -> None:
            if first is None:
                self._not_chosen()
            else:
                self._first = first
                ask = CheckpointScreen(workspace, f"Against {first}", endpoints=True)
                self.app.push_screen(ask, lambda second: self._both(first, second))

        if kept is not None:
            chosen(kept)
        else:
            ask = CheckpointScreen(workspace, "The one of the two", endpoints=True)
            self.app.push_screen(ask, chosen)

    def _both(self, first: str, second: str | None) -> None:
        if second is None:
            self._not_chosen()
        else:
            self._open([first, second])

    def _not_chosen(self) -> None:
        if self.duel is None:
            self._show_model(Content("Two checkpoints are needed. o chooses them, esc leaves."))

    @work(exclusive=True, group="duel")
    async def _open(self, checkpoints: Sequence[str]) -> None:
        self._show_model(content(f"Loading {' and '.join(checkpoints)} …"))
        before, self.round = self.duel, None
        if before is not None:
            self.duel = None
            await before.close()
        try:
            duel = Duel(self.workbench.workspace, annotator_name(self.workbench.settings.labels.annotator), checkpoints)
            try:
                await duel.open()
            except BaseException:
                await duel.close()
                raise
        except UserError as error:
            self._show_model(content(f"{error} o chooses others.", "$text-error"))
            return
        self.duel = duel
        self._describe()
        self._show_saved()
        self._say("type a prompt, or esc, then p: draw them from a dataset")
        self.query_one(Prompt).focus()
        self.refresh_bindings()

    @on(Prompt.Sent)
    def _sent(self, event: Prompt.Sent) -> None:
        if self._ready():
            self.query_one(Prompt).take(event.text)
            self._ask(prompt_of([Turn("user", event.text)], DUELS))

    def action_next(self) -> None:
        """The next prompt of the dataset."""
        if self.drawing is None:
            self.notify("p draws prompts from a dataset; i types one.")
        elif self._ready():
            self._draw()

    @work(exclusive=True, group="ask")
    async def _draw(self) -> None:
        """Another prompt of the dataset, and its answers."""
        assert self.drawing is not None
        try:
            prompt = await self.drawing.draw()
        except UserError as error:
            self._tell(error)
            return
        await self._answer(prompt)

    @work(exclusive=True, group="ask")
    async def _ask(self, prompt: Asks) -> None:
        await self._answer(prompt)

    async def _answer(self, prompt: Asks) -> None:
        """Have both answer, and show the answers when both are there: the quicker one would be known by its pace."""
        duel = self.duel
        if duel is None or not self.query(QuestionPane):
            return  # the person has left meanwhile
        self._turn += 1
        turn, self.round, self._writing = self._turn, None, True
        self.query_one(QuestionPane).focus()
        self._show_progress()
        self.refresh_bindings()
        try:
            if not duel.alive:
                await duel.open()
            round_ = await duel.ask(prompt, self.sampling)
        except UserError as error:
            self._writing = False
            self._tell(error)
            return
        if turn == self._turn:
            self._writing = False
            if self.query(QuestionPane):  # or the person has left meanwhile
                await self._show(round_)

    async def _show(self, round_: Round) -> None:
        """Put a prompt and its answers before the person."""
        self.round, self._began = round_, time.monotonic()
        asked = self.query_one(QuestionPane)
        asked.scroll_home(animate=False)
        self.query_one("#prompt", Static).update(conversation(round_.prompt))
        contenders = self.query_one(Contenders)
        await contenders.show([(one.text, one.done.reason) for one in round_.answers])
        contenders.take_focus()
        if round_.alike:
            self.round = None
            self._say(f"{ALIKE} {self._how_on()}")
        else:
            self._say(HINT)
        self.refresh_bindings()

    async def action_vote(self, key: str) -> None:
        """Store the vote, tell who wrote what, and go on to the next prompt."""
        duel, round_ = self.duel, self.round
        if duel is None or round_ is None or self._saving:
            return
        self._saving, taken = True, time.monotonic() - self._began
        try:
            await asyncio.to_thread(duel.vote, round_, key, round(taken, 2) if taken <= AWAY else 0.0)
        except UserError as error:
            self._tell(error)
            return
        finally:
            self._saving = False
        self.round = None
        for candidate, one in zip(self.query_one(Contenders).candidates, round_.answers, strict=True):
            candidate.border_title = Content.assemble(f"{candidate.number + 1} · ", line(one.checkpoint))
        told = {"1": "the first", "2": "the second", "=": "a tie", "x": "both bad"}[key]
        writers = ", ".join(f"{number} {one.checkpoint}" for number, one in enumerate(round_.answers, 1))
        self._last = line(f"saved {datetime.datetime.now():%H:%M:%S}: {told} · {writers}")
        self._show_saved()
        self.refresh_bindings()
        if self.drawing is not None:
            self._draw()
        else:
            self._say(self._how_on())
            self.query_one(Prompt).focus()

    async def action_undo(self) -> None:
        """Take the last vote of this sitting back; what is being written meanwhile is dropped."""
        duel = self.duel
        if duel is None:
            return
        try:
            vote = await asyncio.to_thread(duel.undo)
        except UserError as error:
            self._tell(error)
            return
        if vote is None:
            self.notify("There is no vote of this sitting to take back.")
            return
        self._turn += 1
        if self._writing:
            self._writing = False
            await duel.cancel()
        self._last = Content("taken back")
        self._show_saved()
        await self._show(vote.round)

    def action_dataset(self) -> None:
        from workbench.screens.pick import Pick

        names = [one.name for one in list_datasets(self.workbench.workspace) if one.info.kind in KINDS]
        if not names:
            self.notify("There is no dataset of prompts, conversations or preferences yet: Data builds one.")
            return

        def chosen(name: str | None) -> None:
            if name is not None:
                self.drawing = Drawing(self.workbench.desk, name)
                self._describe()
                if self.round is None and self._ready():
                    self._draw()

        self.app.push_screen(Pick("Draw prompts from", names), chosen)

    def action_sampling(self) -> None:
        from workbench.screens.sampling import SamplingScreen

        def chosen(sampling: Chat | None) -> None:
            if sampling is not None:
                self.sampling = sampling
                self._describe()

        self.app.push_screen(SamplingScreen(self.sampling), chosen)

    def action_table(self) -> None:
        from workbench.screens.elo import EloScreen

        self.app.push_screen(EloScreen(self.workbench.workspace))

    def action_write(self) -> None:
        self.query_one(Prompt).focus()

    def action_differences(self) -> None:
        self.query_one(Contenders).toggle_differences()

    def action_move(self, by: int) -> None:
        self.query_one(Contenders).move(by)

    async def action_leave(self) -> None:
        """End what is being written; else leave the input; else the duel."""
        if self._writing and self.duel is not None:
            await self.duel.cancel()
        elif self.focused is self.query_one(Prompt):
            self.query_one(Contenders).take_focus()
            if self.focused is self.query_one(Prompt):
                self.query_one(QuestionPane).focus()
        else:
            self.dismiss()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Votes only where there is something to vote on."""
        return action != "vote" or self.round is not None

    def offers(self, action: str) -> bool:
        match action:
            case "next":
                return self.drawing is not None and not self._writing
            case "undo":
                return self.duel is not None and bool(self.duel.votes)
            case "write" | "dataset":
                return self.duel is not None
        return True

    def _ready(self) -> bool:
        """Whether another prompt may be sent, and say why not."""
        if self.duel is None:
            self.notify("Two checkpoints are needed: esc, then o chooses them.")
        elif self._writing:
            self.notify("The answers are being written; esc ends them.")
        return self.duel is not None and not self._writing

    def _describe(self) -> None:
        if self.duel is None or not self.duel.names:
            return
        first, second = self.duel.names
        source = f"prompts from {self.drawing.dataset}" if self.drawing else "prompts typed"
        self._show_model(line(f"{first} against {second} · temperature {self.sampling.temperature:g} · {source}"))

    def _how_on(self) -> str:
        return "n draws the next prompt" if self.drawing else "type the next prompt"

    def _show_progress(self) -> None:
        if self._writing and self.duel is not None:
            self._say(f"both are writing · {self.duel.tokens:,} tokens · esc ends them")

    def _show_saved(self) -> None:
        if self.duel is None or not self.duel.names:
            return
        share = self.duel.share()
        told = f" preferred in {share} of {share.of:,} judged, ties as halves"
        self.query_one("#saved", Static).update(self._last)
        self.query_one("#rate", Static).update(
            Content.assemble(line(self.duel.names[0]), told) if share.of else Content("no votes on these two yet")
        )

    def _say(self, text: str) -> None:
        for where in self.query("#order").results(Static):  # none, once the person has left
            where.update(content(text, "$text-muted"))

    def _show_model(self, text: Content) -> None:
        self.query_one("#model", Static).update(text)

    def _tell(self, error: UserError) -> None:
        self.workbench.show_error(error)
        self.query_one("#order", Static).update(content(str(error), "$text-error"))
        self.refresh_bindings()
