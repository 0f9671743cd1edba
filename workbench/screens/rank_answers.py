"""Ranking on the spot: the answers to one turn of a chat, ordered by digits, saved as a preference.

the turn ────────────────────────────────────────────────────────────
│ What is the capital of Jorvia?                                    │
─────────────────────────────────────────────────────────────────────
1 ────────────────╮╭ 2 · 1st ─────────╮╭ 3 ──────────────────────────╮
│ The capital of  ││ Ivren            ││ …                           │
── 31 chars ──────╯╰ 5 chars · ended ─╯╰─────────────────────────────╯
order 2 > 1 = 3        enter saves; what is left comes last, tied
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from stages.store.errors import UserError
from stages.store.labels import Candidate, Label, Prompt
from workbench.display import content
from workbench.judging.judge_keys import digit_keys
from workbench.judging.judge_lines import conversation
from workbench.judging.labelling import AWAY, annotator_name
from workbench.judging.model_orders import ModelOrders
from workbench.judging.on_the_spot import CHAT, save_judgement
from workbench.judging.order import Order
from workbench.keys import bind
from workbench.screens.base import PlaceScreen
from workbench.widgets.contenders import Contenders, QuestionPane


class Ranked(NamedTuple):
    """What was saved: the label, and the candidates in the order in which they were shown."""

    label: Label
    shown: list[Candidate]
    by_model: str = ""
    """How a reward model orders them, where one has."""

    def __str__(self) -> str:
        """The order, who wrote what, and what a reward model makes of it: to be said only now."""
        order = Order(len(self.shown))
        order.restore(self.label.ranks or [])
        writers = ", ".join(f"{number} {one.checkpoint}" for number, one in enumerate(self.shown, 1))
        return " · ".join(filter(None, [self.label.verdict or str(order), writers, self.by_model]))

    @property
    def best(self) -> str | None:
        """The text that stands alone at the top."""
        ranks = self.label.ranks or []
        return self.shown[ranks.index(1)].text if ranks.count(1) == 1 else None


class RankAnswersScreen(PlaceScreen):
    """Calls `saved` with what was saved, and leaves. The order on the screen is shuffled, and says nothing of who."""

    PLACE = "chat"
    CSS_PATH = "contenders.tcss"
    AUTO_FOCUS = ""
    BINDINGS = [
        *digit_keys("answers", "The next in the order is this answer."),
        bind("answers.tie", "equals_sign", "tie", "Tie", "The next digit shares the rank of the last."),
        bind("answers.back", "backspace", "back", "Take back", "Take the last digit back.", show=False),
        bind("answers.save", "enter", "save", "Save", "Save; what has no rank comes last, tied."),
        bind("answers.best", "space", "best", "Best", "Only the answer under the cursor is best: saved at once."),
        bind("answers.bad", "x", "all_bad", "All bad", "None is any good: all tied, saved at once."),
        bind("answers.differences", "d", "differences", "Differences", "Mark what differs from the one in focus."),
        bind("answers.next", "l,right,tab", "move(1)", "Right", "To the next answer.", show=False),
        bind("answers.previous", "h,left,shift+tab", "move(-1)", "Left", "To the answer before.", show=False),
        bind("answers.leave", "escape", "leave", "Leave", "Back to the chat; nothing is saved."),
    ]

    def __init__(self, prompt: Prompt, candidates: Sequence[Candidate], saved: Callable[[Ranked], object]) -> None:
        super().__init__()
        self._prompt, self._tell_saved = prompt, saved
        self.shown = list(candidates)
        random.SystemRandom().shuffle(self.shown)
        self.order = Order(len(self.shown))
        self._saving = False
        self._began = time.monotonic()

    def compose_body(self) -> ComposeResult:
        with QuestionPane(classes="pane", id="asked") as asked:
            asked.border_title = "the turn"
            yield Static(conversation(self._prompt), id="prompt")
        yield Contenders(id="contenders")
        yield Static(id="order")

    async def on_mount(self) -> None:
        self.show_trail("rank the answers")
        contenders = self.query_one(Contenders)
        await contenders.show([(one.text, one.ended) for one in self.shown])
        contenders.take_focus()
        self._show_order()

    def _show_order(self) -> None:
        for candidate in self.query_one(Contenders).candidates:
            standing = self.order.standing(candidate.number)
            candidate.say(standing)
            candidate.set_class(bool(standing), "-ranked")
        hint = "digits put the answers in order, the best first"
        if self.order.groups:
            hint = "enter saves; what is left comes last, tied" if self.order.left else "enter saves"
        said = Content.assemble(("order ", "$text-muted"), str(self.order) or "—", "  ", (hint, "$text-muted"))
        self.query_one("#order", Static).update(said)

    def action_digit(self, number: int) -> None:
        if not self.order.append(number - 1) and number > self.order.count:
            self.notify(f"There are {self.order.count} answers.")
        self._show_order()

    def action_tie(self) -> None:
        if not self.order.tie():
            self.notify("A tie needs an answer before it: a digit, =, a digit.")
        self._show_order()

    def action_back(self) -> None:
        self.order.back()
        self._show_order()

    async def action_save(self) -> None:
        if self.order.groups:
            await self._save(self.order.ranks())
        else:
            self.notify("Put at least the best in its place with a digit; x if all are bad, esc to leave.")

    async def action_best(self) -> None:
        self.order.only(self.query_one(Contenders).cursor)
        await self._save(self.order.ranks())

    async def action_all_bad(self) -> None:
        await self._save([1] * self.order.count, verdict="all bad")

    def action_differences(self) -> None:
        self.query_one(Contenders).toggle_differences()

    def action_move(self, by: int) -> None:
        self.query_one(Contenders).move(by)

    def action_leave(self) -> None:
        self.dismiss()

    async def _save(self, ranks: list[int], *, verdict: str = "") -> None:
        """Store, and leave once it is on the disk; after a failure the order is still there."""
        if self._saving:
            return
        self._saving, taken = True, time.monotonic() - self._began
        try:
            label = await asyncio.to_thread(
                save_judgement,
                self.workbench.workspace,
                annotator_name(self.workbench.settings.labels.annotator),
                CHAT,
                "rank",
                self._prompt,
                self.shown,
                ranks=ranks,
                verdict=verdict,
                seconds=round(taken, 2) if taken <= AWAY else 0.0,
            )
        except UserError as error:
            self._saving = False
            self.workbench.show_error(error)
            self.query_one("#order", Static).update(content(str(error), "$text-error"))
            return
        by_model = await asyncio.to_thread(ModelOrders(self.workbench.workspace, CHAT).told, label)
        self.dismiss()
        self._tell_saved(Ranked(label, self.shown, by_model))
