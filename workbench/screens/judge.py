"""Judging: a prompt, its candidates, and a few keys to order, rate or answer them. Saved before the next one comes.

prompt · reward part ───────────────────────────────────────────────
│ What is the capital of Jorvia?                                   │
────────────────────────────────────────────────────────────────────
1 · =2nd ────────╮╭ 2 · 1st ─────────╮╭ 3 ────────────╮╭ 4 · =2nd ──
│ The capital of  ││ Ivren            ││ …
── 31 chars ──────╯╰ 5 chars · ended ─╯╰
order 2 > 1 = 4        what is left comes last, tied
saved 12 of 50 at 10:41:07 · 2 > 1 = 3 > 4 · base@2000, sft@400, …
judge@8 ordered them 2 > 3 > 1 > 4 · against you in 1 of 5 pairs: 3 > 1
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from textual import on, work
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from stages.store.errors import UserError
from stages.store.labels import Label, Shown
from stages.store.labels.records import BEST, WORST, Kind, Mode
from workbench.display import content, line
from workbench.judging.judge_keys import JUDGE_KEYS, acts
from workbench.judging.judge_lines import ALL_BAD, conversation, heading, order_line, saved_line, told
from workbench.judging.labelling import Session, annotator_name
from workbench.judging.order import Order, Ratings
from workbench.judging.sitting import Sitting
from workbench.life.steps import FREEZE, Step
from workbench.screens.base import PlaceScreen
from workbench.screens.judge_dialogs import ask_note, ask_place, ask_reason
from workbench.screens.onward import onward_line
from workbench.widgets.candidate import READING_KEYS, Candidate
from workbench.widgets.contenders import Contenders
from workbench.widgets.prompt import Prompt

FROZEN = Step("reward", "reward", "next", stage=FREEZE)
"""What comes after judging."""

PAIRWISE = {"a": [1, 2], "b": [2, 1], "t": [1, 1]}
"""Keys of pairwise judging, with the ranks they give."""


class PromptPane(VerticalScroll, can_focus=True, inherit_bindings=False):
    HELP_TITLE = "The prompt"
    BINDINGS = [*READING_KEYS]


class JudgeScreen(PlaceScreen):
    """One person at one label set, from the next prompt to the last; or at the prompts of it that are to be settled."""

    PLACE = "rank"
    CSS_PATH = ["contenders.tcss", "judge.tcss"]
    AUTO_FOCUS = ""
    BINDINGS = [*JUDGE_KEYS]

    def __init__(self, set_name: str, settle: Sequence[int] = ()) -> None:
        super().__init__()
        self.set_name = set_name
        self.sitting = Sitting(settle)
        self._over: bool | None = None
        """Whether nothing waits; None before anything was asked for."""
        self.order, self.ratings = Order(0), Ratings(0)
        self.note = ""
        self._last, self._by_model = Content(), ""
        """Of the last judgement: what was saved, and how a reward model orders the same."""
        self._refused = ""
        """Why the last key did nothing."""
        self._unsaved = ""
        """A written answer that the disk did not take: where the next one begins."""

    def compose_body(self) -> ComposeResult:
        with PromptPane(classes="pane", id="asked") as asked:
            asked.border_title = "prompt"
            yield Static(id="prompt")
        yield Contenders(id="candidates")
        yield Prompt("Write the answer; enter saves it", id="answer")
        yield Static(id="order")
        yield Static(id="saved")
        yield Static(id="by-model")

    def on_mount(self) -> None:
        self.query_one("#answer").display = False
        self.query_one("#by-model").display = False  # until a model has ordered what the person has judged
        self.show_trail(self.set_name)
        self._open()

    async def on_unmount(self) -> None:
        try:
            await self.sitting.close()
        except UserError as error:
            self.workbench.show_error(error)

    @property
    def session(self) -> Session | None:
        """The label set at hand; None before it is open."""
        return self.sitting.session

    @property
    def mode(self) -> Mode:
        return self.session.set.mode if self.session is not None else "rank"

    @property
    def contenders(self) -> Contenders:
        return self.query_one(Contenders)

    @property
    def candidates(self) -> list[Candidate]:
        return self.contenders.candidates

    @work(exclusive=True, group="judge")
    async def _open(self) -> None:
        settings = self.workbench.settings.labels
        try:
            name = annotator_name(settings.annotator)
            shown = await self.sitting.open(self.workbench.workspace, self.set_name, name)
        except UserError as error:
            self._tell(error)
            return
        await self._show(shown)

    async def _show(self, shown: Shown | None, *, afresh: bool = True) -> None:
        """Put a prompt with its candidates on the screen, and what the person had said of it.

        Unless `afresh`, what was typed since the last answer was sent is the beginning of the next.
        """
        if not self.is_attached:
            return  # the person has left meanwhile
        count = len(shown.completions) if shown is not None else 0
        self.order, self.ratings, self.note = Order(count), Ratings(count), ""
        self._unsaved = ""
        writing = self.mode == "write" and shown is not None
        with self.app.batch_update():
            self._ask(conversation(shown.prompt) if shown is not None else self._all_done())
            self.query_one("#asked").border_title = heading(shown, len(self.sitting.to_settle))
            self.query_one("#asked").scroll_home(animate=False)
            completions = shown.completions if shown is not None and not writing else []
            self.contenders.display = bool(completions)
            await self.contenders.put(completions)
            answer = self.query_one("#answer", Prompt)
            answer.display = writing
            if afresh and answer.text:
                answer.text = ""
        if writing:
            answer.focus()
        else:
            self._focus()
        self._restore()
        if self._over != (shown is None):
            self._over = shown is None
            self.refresh_bindings()

    def _ask(self, prompt: Content) -> None:
        """Show a prompt. The screen is laid out anew only when it takes more or fewer lines."""
        where = self.query_one("#prompt", Static)
        width, height = where.size
        fits = bool(width) and prompt.get_height(where.styles.get_rules(), width) == height
        where.update(prompt, layout=not fits)

    def _restore(self) -> None:
        """Stand as the person left this prompt, if they have been here."""
        earlier = self.session.earlier if self.session is not None else None
        if earlier is not None:
            self._stand_as(earlier)
        self._show_order()

    def _stand_as(self, label: Label) -> None:
        """Stand as when this was said; a judgement that all are bad has no order."""
        if label.ranks is not None and len(label.ranks) == self.order.count and label.verdict != ALL_BAD:
            self.order.restore(label.ranks)
            if label.scores is not None:
                self.ratings.scores = [int(score) for score in label.scores]
        self.note = label.note

    def _show_order(self) -> None:
        for candidate in self.candidates:
            if self.mode == "rate":
                score = self.ratings.scores[candidate.number]
                candidate.say(f"rated {score}" if score is not None else "")
            else:
                candidate.say(self.order.standing(candidate.number))
        session = self.session
        judging = session is not None and session.shown is not None and self.mode != "write"
        refused, self._refused = self._refused, ""
        said = order_line(self.mode, self.order, self.ratings, self.note, refused) if judging else Content()
        saved = saved_line(session, self._last) if session is not None else Content()
        self.query_one("#order", Static).update(said, layout=False)  # each is one line, whatever it says
        self.query_one("#saved", Static).update(saved, layout=False)
        by_model = self.query_one("#by-model", Static)
        by_model.display = by_model.display or bool(self._by_model)  # once there, it stays: nothing jumps
        by_model.update(line(self._by_model, "$text-muted"), layout=False)

    def _refuse(self, why: str) -> None:
        """Say why a key did nothing in the line of the order, until the next key: a toast would cover more."""
        self._refused = why
        self._show_order()

    def _all_done(self) -> Content:
        if self.session is None or not self.session.set.prompts:
            return Content("There is nothing in this set to judge.")
        told = Content("All is judged that waits for you here. u takes the last label back, esc leaves.")
        return Content.assemble(told, "\n\n", onward_line(FROZEN)) if self.session.done else told

    def _focus(self) -> None:
        if self.candidates:
            self.contenders.take_focus()
        else:
            self.query_one("#asked").focus()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Each way of judging has its own keys."""
        session = self.session
        return session is None or acts(action, self.mode, waits=session.shown is not None, done=session.done)

    def action_digit(self, number: int) -> None:
        if self.mode == "rate":
            self.ratings.current = self.contenders.cursor
            if not self.ratings.rate(number):
                self._refused = f"Ratings go from {WORST} to {BEST}."
            self.contenders.at(self.ratings.current)
        elif not self.order.append(number - 1) and number > self.order.count:
            self._refused = f"There are {self.order.count} candidates."
        self._show_order()

    def action_tie(self) -> None:
        if not self.order.tie():
            self._refused = "A tie needs a candidate before it: a digit, =, a digit."
        self._show_order()

    def action_back(self) -> None:
        if self.mode == "rate":
            self.ratings.current = self.contenders.cursor
            self.ratings.back()
            self.contenders.at(self.ratings.current)
        else:
            self.order.back()
        self._show_order()

    async def action_save(self) -> None:
        """Save the order or the ratings, and go on."""
        if self.mode == "rate":
            if not self.ratings.complete:
                self._refuse(f"Rate every candidate from {WORST} to {BEST} first; s skips the prompt.")
                return
            scores = [float(score) for score in self.ratings.scores if score is not None]
            await self._save("rate", self.ratings.ranks(), scores=scores)
        elif not self.order.groups:
            self._refuse("Put at least the best in its place with a digit; x if all are bad, s to skip.")
        else:
            await self._save("rank", self.order.ranks())

    def action_freeze(self) -> None:
        """Open the form that makes a dataset of the labels of this set."""
        self.workbench.start_run(FREEZE, {"label_set": self.set_name})

    async def action_best(self) -> None:
        self.order.only(self.contenders.cursor)
        await self._save("rank", self.order.ranks())

    async def action_all_bad(self) -> None:
        await self._save("pair" if self.mode == "pair" else "rank", [1] * self.order.count, verdict=ALL_BAD)

    async def action_prefer(self, key: str) -> None:
        if self.order.count == 2:
            await self._save("pair", PAIRWISE[key])

    def action_skip(self) -> None:
        ask_reason(self.app, lambda reason: self._save_later("skip", verdict=reason))

    def action_flag(self) -> None:
        from workbench.screens.flagging import Flagging

        def answered(verdict: str | None) -> None:
            if verdict:
                self._flag(verdict)

        self.app.push_screen(Flagging(self.contenders.cursor), answered)

    def action_note(self) -> None:
        def noted(note: str) -> None:
            self.note = note
            self._show_order()

        ask_note(self.app, self.note, noted)

    def action_write(self) -> None:
        """Write a better answer than the one under the cursor."""
        from workbench.screens.writing import Writing

        candidates = self.candidates
        start = (
            candidates[self.contenders.cursor].completion.text if candidates else self.query_one("#answer", Prompt).text
        )
        start, self._unsaved = self._unsaved or start, ""

        def answered(text: str | None) -> None:
            if text is None or not text.strip():
                return
            same = next((one.number + 1 for one in candidates if one.completion.text == text), None)
            if same is not None:
                self.notify(f"It is what {same} says; to have that as the best, rank it first.")
                return
            self.query_one("#answer", Prompt).text = ""
            self._write(text)

        self.app.push_screen(Writing("A better answer" if candidates else "The answer", start), answered)

    async def action_undo(self) -> None:
        if self.session is None:
            return
        try:
            async with self.sitting.turn:
                label = await self.sitting.do(self.session.undo)
        except UserError as error:
            self._tell(error)
            return
        if label is None:
            self.notify("There is no label of yours to take back here.")
            return
        self._last, self._by_model = Content("taken back"), ""
        self.sitting.take_back(label.place)
        await self._show(self.session.shown)
        self._stand_as(label)
        self._show_order()

    def action_go(self) -> None:
        session = self.session
        if session is not None:
            ask_place(self.app, session.shown.place if session.shown else 0, session.set.prompts, self._go)

    def action_differences(self) -> None:
        self.contenders.toggle_differences()

    async def action_markdown(self) -> None:
        await self.contenders.toggle_markdown()

    def action_move(self, by: int) -> None:
        self.contenders.move(by)

    def action_leave(self) -> None:
        answer = self.query_one("#answer", Prompt)
        if self.focused is answer:
            self.query_one("#asked").focus()
        else:
            self.dismiss()

    @on(Prompt.Sent)
    def _answer_sent(self, event: Prompt.Sent) -> None:
        if event.text.strip():
            self.query_one("#answer", Prompt).take(event.text)
            self._write(event.text)
        else:
            self.notify("Write an answer first; esc, then s, skips the prompt.")

    async def _save(
        self,
        kind: Kind,
        ranks: Sequence[int] | None = None,
        *,
        scores: Sequence[float] | None = None,
        verdict: str = "",
    ) -> None:
        """Store, then show the next prompt. The screen says saved only when the label is on the disk."""
        given = {"ranks": ranks, "scores": scores}
        fields = {key: list(values) for key, values in given.items() if values is not None}
        async with self.sitting.turn:
            session = self.session
            if session is None or session.shown is None:
                return
            try:
                label = await self.sitting.do(partial(session.save, kind, verdict=verdict, note=self.note, **fields))
            except UserError as error:
                self._tell(error)
                return
            await self._go_on(session, label)

    async def _go_on(self, session: Session, label: Label, *, afresh: bool = True) -> None:
        """Say what was saved, and show what comes next. When that cannot be read, the saved prompt stays."""
        if not self.sitting.pass_on():
            self.dismiss()
            return
        try:
            self._last = await self.sitting.do(told, session, label)
            self._by_model = await self.sitting.do(session.model_orders.told, label)
            shown = await self.sitting.next(session)
        except UserError as error:
            self._show_order()
            self.workbench.show_error(error)
            return
        await self._show(shown, afresh=afresh)

    @work(group="save")
    async def _save_later(self, kind: Kind, *, verdict: str = "") -> None:
        await self._save(kind, verdict=verdict)

    @work(group="save")
    async def _flag(self, verdict: str) -> None:
        session = self.session
        if session is None or session.shown is None:
            return
        flagged = session.shown.completions[self.contenders.cursor].id
        try:
            async with self.sitting.turn:
                await self.sitting.do(partial(session.save, "flag", completion=flagged, verdict=verdict))
        except UserError as error:
            self._tell(error)
            return
        self._last, self._by_model = content(f"flagged {self.contenders.cursor + 1}: {verdict}"), ""
        self._show_order()

    @work(group="save")
    async def _write(self, text: str) -> None:
        async with self.sitting.turn:
            session = self.session
            if session is None or session.shown is None:
                return
            rated = self.ratings.ranks() if self.ratings.complete else None
            ranks = rated if self.mode == "rate" else self.order.ranks()
            save = partial(session.write, text, best=self.mode != "write", ranks=ranks, note=self.note)
            try:
                label, *_ = await self.sitting.do(save)
            except UserError as error:
                self._unsaved = text
                self._tell(error)
                return
            await self._go_on(session, label, afresh=False)

    @work(group="save")
    async def _go(self, place: int) -> None:
        if self.session is None:
            return
        try:
            async with self.sitting.turn:
                shown = await self.sitting.do(self.session.go, place)
        except UserError as error:
            self._tell(error)
            return
        self.sitting.turn_to_others()
        await self._show(shown)

    def _tell(self, error: UserError) -> None:
        self.workbench.show_error(error)
        if self.is_attached:
            self.query_one("#saved", Static).update(content(str(error), "$text-error"))
