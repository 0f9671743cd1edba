"""Data: datasets and tokenizers, the report of the one selected, and the runs that are making more."""

from __future__ import annotations

from contextlib import suppress

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.events import DescendantFocus
from textual.widgets import OptionList, Static

from stages.store.errors import UserError
from stages.store.names import check_name
from workbench.board.run_board import Entry
from workbench.board.survey import Inventory, Survey
from workbench.display import line, looks_same
from workbench.keys import SCROLL_KEYS, bind
from workbench.records.report import dataset_report, run_report, tokenizer_report
from workbench.screens.base import PlaceScreen
from workbench.screens.question import Ask, Question
from workbench.themes import STATUS_STYLES, STATUS_SYMBOLS
from workbench.widgets.filter_field import NO_MATCH
from workbench.widgets.picklist import PickList

KINDS = ("dataset", "tokenizer")
KINDS_OF_RECORDS = {
    "text": "Documents.",
    "chat": "Conversations, or prompts with an answer.",
    "preference": "Completions of one prompt, ranked.",
    "prompts": "Prompts, with the right answer or without.",
    "labelled": "Texts with labels: classes, pairs, choices, words.",
}
READY = 0.7
"""Seconds on this screen after which the helper process is started for the look that will come."""
STAGES = {"dataset": "build", "tokenizer": "tokenizer"}
RUN = "run:"
"""Prefix of the ids of entries that are runs, before the name of what they make: no name has a colon."""


class Report(VerticalScroll, can_focus=True):
    BINDINGS = [*SCROLL_KEYS]


class Names(PickList):
    BINDINGS = [bind("data.open", "enter", "select", "Look", "Look at the records, the tokens, or the run.")]


class DataScreen(PlaceScreen):
    """Two lists at the left, a report at the right."""

    PLACE = "data"
    CSS_PATH = "data.tcss"
    AUTO_FOCUS = "#dataset"
    BINDINGS = [
        bind("data.build", "n", "build", "Build", "Build a dataset from files and folders."),
        bind("data.check", "c", "check", "Check", "Examine the selected dataset: lengths, duplicates, suspicions."),
        bind("data.tokenizer", "t", "tokenizer", "Tokenizer", "Train a tokenizer on the selected dataset."),
        bind("data.pretrain", "p", "pretrain", "Pre-train", "Pre-train a model on what is selected."),
        bind("data.mask", "m", "mask", "Mask", "Which tokens of the selected conversations are trained."),
        bind("data.tokens", "v", "tokens", "Tokens", "Look at text as tokens of the selected tokenizer."),
        bind("data.cancel", "x", "cancel", "Cancel", "Stop the selected run; nothing half-made is left."),
        bind("data.delete", "d,delete", "delete", "Delete", "Delete the selected dataset or tokenizer."),
        bind("data.bin", "B", "app.bin", "Bin", "What was deleted: take it back, or delete it for good.", show=False),
        bind("data.again", "a", "again", "Again", "Start the selected failed or lost run again."),
        bind("data.report", "o", "report", "Report", "To the report, to scroll in it.", show=False),
        bind("data.create", "plus,N", "create", "By hand", "Make an empty dataset, and write its records here."),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.inventory = Inventory([], [], [])
        self.kind = "dataset"
        self._survey: Survey | None = None
        self._reported = Content()
        self._wanted: tuple[str, str] | None = None

    def compose_body(self) -> ComposeResult:
        with Horizontal():
            with Vertical(id="lists"):
                for kind, empty in zip(KINDS, ("none yet: n builds one", "none yet: t trains one"), strict=True):
                    names = Names(id=kind, empty=empty)
                    names.border_title = f"{kind.capitalize()}s"
                    names.add_class("pane")
                    yield names
            with Report(classes="pane") as report:
                report.border_title = "Report"
                yield Static(id="report")

    def on_mount(self) -> None:
        self._survey = Survey(self.workbench.workspace)
        self.poll(1.0, self.look)
        self.set_timer(READY, self._prepare)

    def _prepare(self) -> None:
        if self.inventory.datasets:
            self._get_ready()

    def choose(self, kind: str, name: str) -> None:
        """Select a dataset or a tokenizer by name; it may appear only with the next look."""
        self._wanted = (kind, name)
        self._choose_wanted()

    @work(thread=True, exclusive=True, group="survey")
    def look(self) -> None:
        """Read the workspace, then show it."""
        assert self._survey is not None
        self.app.call_from_thread(self.show, self._survey.look())

    def show(self, inventory: Inventory) -> None:
        """Show what was read. Widgets redraw only what changed."""
        self.inventory = inventory
        for kind in KINDS:
            names, chosen = self._list(kind), self._list(kind).chosen or ""
            made = [(name, line(name)) for name in self._names(kind)]
            names.show([*self._making(kind), *made])
            if chosen.startswith(RUN) and names.chosen != chosen:
                names.choose(chosen.removeprefix(RUN))  # the run has made what it was to make
        self._choose_wanted()
        self._show_report()

    def _making(self, kind: str) -> list[tuple[str, Content]]:
        """Entries for runs that have not made their dataset or tokenizer: at work, or ended badly."""
        made = self._names(kind)
        entries: dict[str, tuple[str, Content]] = {}
        for facts in self.inventory.runs:
            ended_well = facts.status in ("finished", "stopped") or made.get(facts.name, 0.0) > facts.spec.created
            if facts.spec.stage == STAGES[kind] and facts.name not in entries and not ended_well:
                symbol = Content.styled(f"{STATUS_SYMBOLS[facts.status]} ", STATUS_STYLES[facts.status])
                share = f" {facts.share:.0%}" if facts.live and facts.share is not None else ""
                entries[facts.name] = (RUN + facts.name, Content.assemble(symbol, line(facts.name), share))
            made.setdefault(facts.name, facts.spec.created)
        return list(entries.values())

    def _list(self, kind: str) -> PickList:
        return self.query_one(f"#{kind}", PickList)

    def _choose_wanted(self) -> None:
        if self._wanted is None:
            return
        kind, name = self._wanted
        names = self._list(kind)
        if names.choose(RUN + name) or names.choose(name):
            self._wanted = None
            names.focus()

    def _names(self, kind: str) -> dict[str, float]:
        """What there is of a kind by name, with the time it was made, the newest first."""
        datasets, tokenizers = self.inventory.datasets, self.inventory.tokenizers
        found = [(d.name, d.info.created) for d in datasets] if kind == "dataset" else []
        found += [(t.name, t.info.created) for t in tokenizers] if kind == "tokenizer" else []
        return dict(sorted(found, key=lambda pair: -pair[1]))

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        if event.widget.id in KINDS:
            self.kind = event.widget.id
            self._show_report()

    @on(OptionList.OptionHighlighted)
    def _highlighted(self) -> None:
        self._show_report()

    @on(OptionList.OptionSelected)
    def _selected(self) -> None:
        facts, chosen = self._run(), self._list(self.kind).chosen
        if facts is not None:
            self.workbench.open_run(facts.run)
        elif self.kind == "dataset" and chosen is not None:
            self.open_records(chosen)
        elif chosen is not None:
            self.action_tokens()

    def open_records(self, name: str) -> None:
        """Browse the records of a dataset."""
        from workbench.screens.records import RecordsScreen

        self.app.push_screen(RecordsScreen(name))

    def action_report(self) -> None:
        self.query_one(Report).focus()

    def action_create(self) -> None:
        """Ask for kind and name, and open the empty set."""
        from workbench.screens.pick import Pick

        def answered(kind: str | None) -> None:
            if kind is not None:
                self._ask_name(kind)

        self.app.push_screen(Pick("What is a record of the new dataset?", list(KINDS_OF_RECORDS)), answered)

    def _ask_name(self, kind: str) -> None:
        def answered(name: str | None) -> None:
            if name is not None:
                self._create(name, kind)

        detail = f"{KINDS_OF_RECORDS[kind]} In its records, a adds one."
        self.app.push_screen(Ask("Name of the dataset", detail, "", self._check_new), answered)

    @work(group="create")
    async def _create(self, name: str, kind: str) -> None:
        try:
            await self.workbench.desk.ask("records.create", name=name, kind=kind)
        except UserError as error:
            self.workbench.show_error(error)
            return
        self.look()
        self.choose("dataset", name)
        self.open_records(name)

    def _check_new(self, name: str) -> None:
        check_name(name, "name of a dataset")
        if (self.workbench.workspace.datasets / name).exists():
            raise UserError(f"There is already a dataset {name!r}.", "Choose another name.")

    @work(group="ready")
    async def _get_ready(self) -> None:
        """Load what looking at records needs, so that the first look is quick."""
        import workbench.screens.records  # noqa: F401

        with suppress(UserError):
            await self.workbench.desk.ask("records.ready")

    def _show_report(self) -> None:
        chosen, facts = self._list(self.kind).chosen, self._run()
        if facts is not None:
            shown = run_report(facts)
        elif chosen is None and self._list(self.kind).filter_text:
            shown = Content(NO_MATCH)
        elif chosen is None:
            shown = Content("Nothing here yet. n builds a dataset from files and folders, or from starter:world.")
        elif self.kind == "dataset":
            shown = dataset_report(next(d for d in self.inventory.datasets if d.name == chosen), self.inventory)
        else:
            shown = tokenizer_report(next(t for t in self.inventory.tokenizers if t.name == chosen))
        self.show_trail(*filter(None, [facts.name if facts else chosen]))
        self.refresh_bindings()
        if not looks_same(shown, self._reported):
            self._reported = shown
            self.query_one("#report", Static).update(shown)

    def _run(self) -> Entry | None:
        """The run under the cursor, when it is one."""
        chosen = self._list(self.kind).chosen
        if chosen is None or not chosen.startswith(RUN):
            return None
        stage, name = STAGES[self.kind], chosen.removeprefix(RUN)
        return next((f for f in self.inventory.runs if f.spec.stage == stage and f.name == name), None)

    def _holds(self, kind: str) -> bool:
        """Whether the dataset under the cursor is of `kind`."""
        chosen = self._list("dataset").chosen
        return any(found.name == chosen and found.info.kind == kind for found in self.inventory.datasets)

    def _dataset(self) -> str | None:
        """The dataset selected, or the one that the selected tokenizer was trained on."""
        names = {found.name for found in self.inventory.datasets}
        chosen = self._list(self.kind).chosen
        if self.kind == "tokenizer":
            chosen = next((found.info.dataset for found in self.inventory.tokenizers if found.name == chosen), None)
        return chosen if chosen in names else next(iter(self._names("dataset")), None)

    def offers(self, action: str) -> bool:
        """Only conversations have a mask; elsewhere the key says so."""
        return action != "mask" or (self.kind == "dataset" and self._holds("chat"))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Runs are cancelled and tried again only where one is selected."""
        if action == "check":
            return self.kind == "dataset" and self._run() is None and self._list("dataset").chosen is not None
        if action not in ("cancel", "again", "delete"):
            return True
        facts = self._run()
        if action == "delete":
            return facts is None and self._list(self.kind).chosen is not None
        return facts is not None and facts.live == (action == "cancel")

    def action_build(self) -> None:
        self.workbench.start_run(
            "build", {} if self.inventory.datasets else {"sources": ["starter:world"], "name": "world"}
        )

    def action_tokenizer(self) -> None:
        dataset = self._dataset()
        if dataset is None:
            self.notify("A tokenizer is trained on a dataset: build one first (n).")
        else:
            self.workbench.start_run("tokenizer", {"dataset": dataset})

    def action_check(self) -> None:
        from workbench.screens.check import CheckScreen

        self.app.push_screen(CheckScreen(dataset=self._list("dataset").chosen or ""))

    def action_pretrain(self) -> None:
        dataset = self._dataset()
        tokenizers = [found.name for found in self.inventory.tokenizers if found.info.dataset == dataset]
        if self.kind == "tokenizer":
            tokenizers = [
                found.name for found in self.inventory.tokenizers if found.name == self._list(self.kind).chosen
            ]
        if dataset is None or not self.inventory.tokenizers:
            self.notify("Pre-training needs a dataset (n) and a tokenizer (t).")
            return
        tokenizer = (tokenizers or [self.inventory.tokenizers[0].name])[0]
        self.workbench.start_run("pretrain", {"dataset": dataset, "tokenizer": tokenizer})

    def action_mask(self) -> None:
        """Look at the loss mask of the selected conversations, for the model that was trained last."""
        from workbench.models.tuning import datasets_for, tunable
        from workbench.screens.mask import MaskScreen

        chosen, models = self._list("dataset").chosen, tunable(self.workbench.workspace)
        if chosen not in datasets_for(self.workbench.workspace, "sft") or not models:
            self.notify("The mask shows a dataset of conversations, for a model: choose the one, and have the other.")
        else:
            self.app.push_screen(MaskScreen(str(chosen), models[0]))

    def action_tokens(self) -> None:
        """Look at text as tokens of the selected tokenizer."""
        from workbench.screens.tokens import TokensScreen

        chosen = self._list("tokenizer").chosen or ""
        self.app.push_screen(TokensScreen("" if chosen.startswith(RUN) else chosen))

    def action_delete(self) -> None:
        """Delete what is selected, after a question; refused, by name, while something needs it."""
        kind, name = self.kind, self._list(self.kind).chosen
        if name is None or self._run() is not None:
            return
        question = Question(
            f"Delete the {kind} {name}?", "It goes into the bin, and can be taken back: B.", yes="delete it"
        )

        def answered(yes: bool | None) -> None:
            if yes:
                self._delete(kind, name)

        self.app.push_screen(question, answered)

    @work(thread=True, group="act")
    def _delete(self, kind: str, name: str) -> None:
        from stages.store.lineage import delete_dataset, delete_tokenizer

        try:
            (delete_dataset if kind == "dataset" else delete_tokenizer)(self.workbench.workspace, name)
        except UserError as error:
            self.app.call_from_thread(self.workbench.show_error, error)
        else:
            self.app.call_from_thread(self.notify, f"Deleted {name}.")
        self.look()

    def action_cancel(self) -> None:
        self._act("stop")

    def action_again(self) -> None:
        self._act("start")

    @work(thread=True, group="act")
    def _act(self, verb: str) -> None:
        from workbench import runs

        facts = self._run()
        if facts is None:
            return
        try:
            if verb == "stop":
                runs.stop(facts.run)
            else:
                runs.start(facts.run, cpu_width=self.workbench.settings.queue.cpu_width)
        except UserError as error:
            self.app.call_from_thread(self.workbench.show_error, error)
        self.look()
