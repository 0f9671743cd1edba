"""The sizes people quote: what each model has, takes and costs, on this machine.

╭ models ────────────────────────────────────────────────╮╭ GPT-2 small ──────────────────────╮
│ name         parameters  to train  fits   time here     ││ The smallest GPT-2: 124 million …  │
│ gpt2-small  124,439,808       3.57 GB  train  3.4 years ││ parameters  124,439,808            │
│ …                                                       ││ of these    tokens 38,597,376 …    │
╰─────────────────────────────────────────────────────────╯╰────────────────────────────────────╯
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from stages.store.errors import UserError
from stages.store.presets import load_preset
from stages.store.specs import FROM_CHECKPOINT, TRAINING, spec_of
from workbench.display import content, line
from workbench.keys import SCROLL_KEYS, bind
from workbench.models.model_cards import Card, Plan, all_cards, facts_of, long, size, time_of, told_rates
from workbench.models.rates import VERB, Machine, Rate, rates_of_runs, remember, remembered, this_machine
from workbench.plots.scope import count_of
from workbench.plots.series import figure
from workbench.screens.base import PlaceScreen
from workbench.screens.question import Ask
from workbench.widgets.row_table import RowTable
from workbench.wording import operations

COLUMNS = ("name", "parameters", "to train", "fits", "time here", "FLOP")


class Facts(VerticalScroll, can_focus=True):
    HELP_TITLE = "The model"
    BINDINGS = [*SCROLL_KEYS]


class ModelsScreen(PlaceScreen):
    """A row for each preset and planned model; beside it all figures of the one under the cursor."""

    PLACE = "home"
    CSS_PATH = "models.tcss"
    AUTO_FOCUS = "RowTable"
    BINDINGS = [
        bind("models.tokens", "t", "tokens", "Tokens", "How many tokens to train on."),
        bind("models.context", "c", "context", "Context", "How many tokens are in view."),
        bind("models.batch", "b", "batch", "Batch", "How many sequences are computed at once."),
        bind("models.precision", "f", "precision", "bf16/fp32", "Weights in bf16 beside fp32 masters, or all in fp32."),
        bind("models.measure", "m", "measure", "Time it", "Time a few steps of training on this machine."),
        bind("models.import", "i", "import", "Import", "Take in a model that others made."),
        bind("models.back", "escape", "back", "Back", "Back to where one came from."),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.plan = Plan()
        self._cards: dict[str, Card] = {}
        self._machine: Machine | None = None
        self._rates: list[Rate] = []
        self._timed: Rate | None = None
        self._measuring = False

    def compose_body(self) -> ComposeResult:
        with Horizontal(id="models-body"):
            with Vertical(id="models-list", classes="pane"):
                yield RowTable()
            with Facts(id="models-facts", classes="pane"):
                yield Static(id="facts")
        yield Static(id="models-note", classes="muted")

    def on_mount(self) -> None:
        self.query_one("#models-list").border_title = "models"
        self.show_trail("models")
        self._look()

    @work(thread=True, exclusive=True, group="look")
    def _look(self) -> None:
        cards, machine = all_cards(), this_machine()
        rates, timed = rates_of_runs(self.workbench.workspace, machine), remembered(machine)
        self.app.call_from_thread(self._looked, cards, machine, rates, timed)

    def _looked(self, cards: list[Card], machine: Machine, rates: list[Rate], timed: Rate | None) -> None:
        self._cards, self._machine = {card.name: card for card in cards}, machine
        self._rates, self._timed = rates, timed
        self.show()
        if not rates and timed is None:
            self._measure()

    def show(self) -> None:
        """Fill the table and the figures by the plan."""
        machine = self._machine
        if machine is None:
            return
        rows = [
            (name, _cells(card, self.plan, machine, self._rates, self._timed)) for name, card in self._cards.items()
        ]
        self.query_one(RowTable).show(COLUMNS, rows)
        used = [found[1] for card in self._cards.values() if (found := self._time(card))]
        timing = "Timing a few steps of training …" if self._measuring else told_rates(used)
        tokens = figure(self.plan.tokens) if self.plan.tokens else "20 for each parameter"
        plan = f"Tokens: {tokens}. Sequences at once: {self.plan.micro_batch}. {self.plan.dtype}."
        where = f"{machine.name}, {size(machine.memory)} of memory."
        self.query_one("#models-note", Static).update(line(f"{plan} {where} {timing}"))
        self._show_facts()

    def _time(self, card: Card) -> tuple[float, Rate] | None:
        return time_of(card, self.plan, self._rates, self._timed)

    @on(RowTable.Moved)
    def _show_facts(self) -> None:
        card, machine = self._cards.get(self.query_one(RowTable).chosen or ""), self._machine
        if card is None or machine is None:
            return
        pane = self.query_one("#models-facts")
        pane.border_title = line(card.title)
        facts = facts_of(card, self.plan, machine, self._rates, self._timed)
        shown = [
            Content.assemble((f"{name}\n", "$text-muted"), content(value)) for name, value in facts.items() if value
        ]
        self.query_one("#facts", Static).update(Content("\n").join([content(card.about, "bold"), *shown]))

    @on(RowTable.Opened)
    def _opened(self, event: RowTable.Opened) -> None:
        """Begin a model of this shape."""
        card = self._cards[event.key]
        if card.kind != "preset":
            self.notify("This one is for planning only.", title=card.title)
            return
        self.workbench.start_run(stage_for(load_preset(card.name).kind), {"preset": card.name})

    def action_import(self) -> None:
        self.workbench.start_run("importing")

    def action_tokens(self) -> None:
        """Ask for how many tokens."""
        text = figure(self.plan.tokens) if self.plan.tokens else ""
        self._ask("Tokens to train on", "Such as 300G; empty: 20 for each parameter.", text, self._take_tokens)

    def action_context(self) -> None:
        """Ask for how many tokens in view."""
        text = str(self.plan.context or "")
        self._ask("Tokens in view", "Empty: as many as the model can see, up to 4,096.", text, self._take_context)

    def action_batch(self) -> None:
        """Ask for how many sequences at once."""
        self._ask(
            "Sequences at once",
            "The micro-batch, of which activations are kept.",
            str(self.plan.micro_batch),
            self._take_batch,
        )

    def action_precision(self) -> None:
        """Between bf16 and fp32."""
        self.plan = replace(self.plan, dtype="fp32" if self.plan.dtype == "bf16" else "bf16")
        self.show()

    def action_measure(self) -> None:
        """Time a few steps anew."""
        if not self._measuring:
            self._measure()

    def action_back(self) -> None:
        self.dismiss()

    @work(group="ask")
    async def _ask(self, title: str, detail: str, text: str, take: Callable[[str], Plan]) -> None:
        answer = await self.app.push_screen_wait(Ask(title, detail, text, take))
        if answer is not None:
            self.plan = take(answer)
            self.show()

    def _take_tokens(self, text: str) -> Plan:
        return replace(self.plan, tokens=float(_count(text)) if text.strip() else None)

    def _take_context(self, text: str) -> Plan:
        return replace(self.plan, context=_count(text) if text.strip() else None)

    def _take_batch(self, text: str) -> Plan:
        return replace(self.plan, micro_batch=_count(text))

    @work(exclusive=True, group="measure")
    async def _measure(self) -> None:
        self._measuring = True
        self.show()
        try:
            measured = await self.workbench.desk.ask(VERB)
            assert self._machine is not None
            self._timed = remember(self._machine, measured)
        except UserError as error:
            self.workbench.show_error(error)
        finally:
            self._measuring = False
        self.show()


def stage_for(kind: str) -> str:
    """The stage that makes a new model of a kind."""
    new = (stage for stage in TRAINING if stage not in FROM_CHECKPOINT)
    return next(stage for stage in new if getattr(spec_of(stage), "KIND", "") == kind)


def _cells(card: Card, plan: Plan, machine: Machine, rates: list[Rate], timed: Rate | None) -> list[str]:
    found = time_of(card, plan, rates, timed)
    memory = size(card.memory(plan, machine).total)
    fits, flops = card.fits(plan, machine), operations(card.flops(plan)).removesuffix("FLOP")
    return [card.name, f"{card.parameters:,}", memory, fits, long(found[0]) if found else "", flops]


def _count(text: str) -> int:
    try:
        found = count_of(text)
    except ValueError:
        found = 0.0
    if not 1 <= found <= 1e18:
        raise UserError(f"{text!r} is no such number.", "Write 300G, 1.5M or 2,048.")
    return int(found)
