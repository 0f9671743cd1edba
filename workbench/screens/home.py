"""Home: the model's life, what is next, and what is here."""

from __future__ import annotations

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import OptionList, Static

from stages.store.errors import UserError
from stages.store.specs import TRAINING
from workbench.board.run_board import Entry
from workbench.board.survey import Inventory, Survey
from workbench.display import line
from workbench.keys import bind
from workbench.life.onward import label
from workbench.life.starter import STEPS
from workbench.life.steps import FREEZE, POLICY_STAGES, Life, State, Step, lives
from workbench.screens.base import PlaceScreen
from workbench.screens.pick import pick_stage
from workbench.themes import STATUS_STYLES, STATUS_SYMBOLS
from workbench.widgets.picklist import PickList, cell
from workbench.widgets.steps import LifeRow
from workbench.wording import standing

HALTED: tuple[State, ...] = ("failed", "stopped", "paused")
"""States of a step whose run can be started again."""
ABOUT = {
    "data": "Text that a model learns from, or conversations, or rankings.",
    "tokenizer": "It cuts text into tokens, the pieces that a model reads and writes.",
    "pretrain": "A new model learns to continue text, one token after the other.",
    "sft": "Supervised fine-tuning: the model learns from conversations how to answer.",
    "rank": "You put several answers to a question in order, the best first.",
    "reward": "A second model learns from your rankings to score answers.",
    "policy": "The tuned model, now called the policy, learns to write what is preferred.",
    "chat": "Talk to the newest model of this life.",
}
"""What each step is, in a sentence of at most 76 characters."""
RECENT = 20
"""Runs listed at most."""


class HomeScreen(PlaceScreen):
    """The life of the lineage with the latest activity, recent runs, and counts."""

    PLACE = "home"
    CSS_PATH = "home.tcss"
    AUTO_FOCUS = "LifeRow"
    BINDINGS = [
        bind("home.starter", "s", "starter", "Starter life", "Build the starter world and train a tiny model on it."),
        bind("home.new", "n", "new", "New", "Open the form of this step, to make another."),
        bind("home.again", "t", "again", "Try again", "Start the step's failed, stopped or lost run again."),
        bind("home.models", "m", "models", "Models", "What models cost: parameters, memory, compute, time here."),
        bind("home.sweeps", "w", "sweeps", "Sweeps", "Sweeps and scaling studies: runs started together."),
        bind("home.older", "right_square_bracket", "turn(1)", "Older", "The lineage before.", show=False),
        bind("home.newer", "left_square_bracket", "turn(-1)", "Newer", "The lineage after.", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.inventory: Inventory | None = None
        self.lives: list[Life] = []
        self.place = 0
        self._survey: Survey | None = None

    def compose_body(self) -> ComposeResult:
        yield Static("The model's life", classes="heading", id="title")
        yield LifeRow()
        yield Static(id="advice")
        with Horizontal(id="below"):
            runs = PickList(id="recent", empty="no runs yet")
            runs.border_title = "Recent runs"
            runs.add_class("pane")
            yield runs
            here = Static(id="here", classes="pane")
            here.border_title = "In the workspace"
            yield here

    def on_mount(self) -> None:
        self._survey = Survey(self.workbench.workspace)
        self.poll(1.0, self.look)

    @work(thread=True, exclusive=True, group="survey")
    def look(self) -> None:
        """Read the workspace, then show it."""
        assert self._survey is not None
        inventory = self._survey.look()
        found = lives(inventory)
        self.app.call_from_thread(self.show, inventory, found)

    def show(self, inventory: Inventory, found: list[Life]) -> None:
        """Show what was read. Widgets redraw only what changed."""
        self.inventory, self.lives = inventory, found
        self.place = min(self.place, len(found) - 1)
        self._show_life()
        self.query_one("#recent", PickList).show([(facts.run.id, _entry(facts)) for facts in inventory.runs[:RECENT]])
        self.query_one("#here", Static).update(_counts(inventory))

    @property
    def life(self) -> Life | None:
        return self.lives[self.place] if self.lives else None

    def _show_life(self) -> None:
        life = self.life
        assert life is not None
        self.query_one(LifeRow).show(life)
        others = f"{self.place + 1} of {len(self.lives)} [ ]" if len(self.lives) > 1 else ""
        nothing = ["nothing here yet"] if self.inventory is None or self.inventory.empty else []
        self.show_trail(*(life.names or nothing), *filter(None, [others]))

    @on(LifeRow.Moved)
    def _advise(self, event: LifeRow.Moved) -> None:
        advice = self._advice(event.step)
        if "\n" not in advice.plain and event.step.state != "failed":
            advice = Content.assemble(advice, (f"\n{ABOUT[event.step.key]}", "$text-muted"))
        self.query_one("#advice", Static).update(advice)
        self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """`t` is offered only where something can be tried again."""
        if action != "again":
            return True
        step = self.query_one(LifeRow).step
        return step is not None and step.run is not None and step.state in HALTED

    def _advice(self, step: Step) -> Content:
        """What can be done with the step under the cursor."""
        starter = self.life is not None and self.life.starter and step.key in STEPS
        by_itself = (("  s", "bold $accent"), " goes on by itself with the starter life.") if starter else ()
        match step.state:
            case "later" if step.key == "reward" and step.detail == "needs labels":
                return Content(
                    "A reward model learns from rankings: judge completions in Rank, then d makes a dataset there."
                )
            case "later" if step.key == "rank":
                return _offer("To Rank, where sets to judge are made")
            case "later":
                return Content(f"{step.title} comes after the steps before it.")
            case "next" if step.key == "data":
                return Content.assemble(
                    _offer(label(step)),
                    ("\ns", "bold $accent"),
                    "      The first four steps by themselves, on a small made-up world: minutes on a CPU",
                )
            case "next" | "open" if step.key == "policy" and step.stage != FREEZE:
                return Content.assemble(_offer(label(step)), ("  ^p", "bold $accent"), " has GRPO and PPO.")
            case "next" | "open":
                return Content.assemble(_offer(label(step)), *by_itself)
            case "done" if step.key == "rank":
                return _offer("To Rank: how good the labels are, and more to judge")
            case state if state in HALTED:
                return Content.assemble(
                    line(_trouble(step), "$text-error" if step.state == "failed" else ""),
                    ("  enter", "bold $accent"),
                    " opens the run, ",
                    ("t", "bold $accent"),
                    f" {'tries again' if step.state == 'failed' else 'goes on with it'}.",
                    *by_itself,
                )
            case _:
                run = step.key in ("pretrain", "sft", "reward", "policy") or step.state == "running"
                what = "shows the run: its curve, samples, log" if run else "shows it"
                return Content.assemble(
                    ("enter", "bold $accent"), f" {what}; ", ("n", "bold $accent"), " makes another."
                )

    @on(LifeRow.Opened)
    def _open_step(self, event: LifeRow.Opened) -> None:
        if event.step.state == "later" and event.step.key != "rank":
            self.notify(self._advice(event.step).plain)
        else:
            self.workbench.open_step(event.step)

    @on(OptionList.OptionSelected, "#recent")
    def _open_recent(self, event: OptionList.OptionSelected) -> None:
        for facts in self.inventory.runs if self.inventory else []:
            if facts.run.id == event.option_id:
                self.workbench.open_run(facts.run)

    def action_turn(self, by: int) -> None:
        """Show another lineage."""
        if self.lives:
            self.place = (self.place + by) % len(self.lives)
            self.query_one(LifeRow).life = None
            self._show_life()

    def action_new(self) -> None:
        step = self.query_one(LifeRow).step
        if step is None or not step.stage or step.state == "later":
            self.notify("Nothing can be started here yet.")
        elif step.key == "policy":
            pick_stage(self.app, "Improve the model by what?", POLICY_STAGES, lambda stage: self._improve(step, stage))
        else:
            self.workbench.start_run(step.stage, step.values)

    def _improve(self, step: Step, stage: str) -> None:
        """Open the form of a way to improve a policy; what the step proposes fills the form of its own stage."""
        self.workbench.start_run(stage, step.values if stage == step.stage else {})

    def action_starter(self) -> None:
        """Begin the starter life, or go on with the one that is shown."""
        life = self.life
        if life is not None and life.starter and not self._is_complete(life):
            self.workbench.starter.begin(life.step("data").name)
        else:
            self.workbench.starter.begin()

    def action_models(self) -> None:
        from workbench.screens.models import ModelsScreen

        self.app.push_screen(ModelsScreen())

    def action_sweeps(self) -> None:
        from workbench.screens.sweeps import SweepsScreen

        self.app.push_screen(SweepsScreen())

    @work(thread=True, group="again")
    def action_again(self) -> None:
        from workbench.runs import start

        step = self.query_one(LifeRow).step
        if step is None or step.run is None:
            return
        try:
            start(step.run.run, cpu_width=self.workbench.settings.queue.cpu_width)
        except UserError as error:
            self.app.call_from_thread(self.workbench.show_error, error)
        self.look()

    def _is_complete(self, life: Life) -> bool:
        return all(step.state == "done" for step in life.steps[:4])


def _offer(text: str) -> Content:
    """What enter does, as a request with its key before it."""
    return Content.assemble(("enter", "bold $accent"), "  ", line(text, "bold"))


def _trouble(step: Step) -> str:
    error = step.run.state.error if step.run and step.run.status == "failed" else None
    return f"{error.message} {error.hint}".strip() if error else f"{step.title}: {step.detail}."


def _entry(facts: Entry) -> Content:
    """A line of the list: name and stage behind the symbol of the status, where it stands."""
    style = STATUS_STYLES[facts.status]
    return Content.assemble(
        Content.styled(f"{STATUS_SYMBOLS[facts.status]} ", style),
        cell(line(facts.name), 18),
        cell(line(f" {facts.spec.stage}", "$text-muted"), 11),
        Content(" "),
        line(standing(facts.state, facts.status), style),
    )


def _counts(inventory: Inventory) -> Content:
    models = sum(1 for facts in inventory.runs if facts.spec.stage in TRAINING and facts.status == "finished")
    working = sum(1 for facts in inventory.runs if facts.live)
    rows = [
        (len(inventory.datasets), "dataset", "datasets"),
        (len(inventory.tokenizers), "tokenizer", "tokenizers"),
        (len(inventory.runs), "run", "runs"),
        (working, "run at work", "runs at work"),
        (models, "finished model", "finished models"),
    ]
    lines = [
        Content.assemble((f"{count:>4,} ", "bold" if count else "$text-muted"), one if count == 1 else many)
        for count, one, many in rows
    ]
    return Content("\n").join(lines)
