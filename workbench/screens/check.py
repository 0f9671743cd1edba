"""The data doctor's report: what the data hold, how long the records are, and what is suspicious."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.worker import Worker

from stages.store.checks import Check, Finding
from stages.store.desk import DeskProgress
from stages.store.errors import UserError
from stages.store.tokenizers import find_tokenizer, list_tokenizers
from workbench.display import content, line
from workbench.keys import SCROLL_KEYS, bind
from workbench.records.check_lines import fact_lines, length_lines, problem_lines, remedy, verdict
from workbench.screens.base import Dialog, PlaceScreen
from workbench.screens.question import Ask
from workbench.widgets.picklist import PickList


class Scrolling(VerticalScroll, can_focus=True):
    BINDINGS = [*SCROLL_KEYS]


class CheckScreen(PlaceScreen):
    """Facts and histograms at the left, findings at the right. The desk examines; leaving the screen stops it."""

    PLACE = "data"
    CSS_PATH = "check.tcss"
    AUTO_FOCUS = "#findings"
    BINDINGS = [
        bind("check.build", "b", "build", "Build", "Open the build form with every fix filled in."),
        bind(
            "check.tokenizer", "t", "tokenizer", "Tokens", "Count lengths in tokens, too: the next tokenizer or none."
        ),
        bind("check.against", "e", "against", "Against", "Name evaluation sets that must not be in the data."),
        bind("check.again", "r", "again", "Again", "Examine anew."),
        bind("check.back", "escape", "back", "Back", "Leave; an examination at work is stopped."),
    ]

    def __init__(self, *, dataset: str = "", settings: Mapping[str, Any] | None = None) -> None:
        """Examine a dataset by name, or the sources that the `settings` of a build name."""
        super().__init__()
        self._asked: dict[str, Any] = {"dataset": dataset} if dataset else {"settings": dict(settings or {})}
        self._what = dataset or ", ".join(self._asked["settings"].get("sources", []))
        self._tokenizer, self._against = "", list[str]()
        self._work: Worker[None] | None = None
        self.found: Check | None = None

    def compose_body(self) -> ComposeResult:
        with Horizontal(id="check"):
            with Scrolling(id="facts", classes="pane") as facts:
                facts.border_title = "Data"
                yield Static(id="report")
            with Vertical(id="suspicions"):
                findings = PickList(id="findings", empty="none")
                findings.border_title = "Findings"
                findings.add_class("pane")
                yield findings
                with Vertical(classes="pane", id="about") as about:
                    about.border_title = "About it"
                    yield Static(id="finding")

    def on_mount(self) -> None:
        self.show_trail("check", self._what)
        self.action_again()

    def on_resize(self) -> None:
        self._show_report()

    def action_again(self) -> None:
        self.found = None
        self._say("Examining …")
        self._show_findings()
        self._work = self._examine()

    @work(exclusive=True, group="check")
    async def _examine(self) -> None:
        asked = {**self._asked, "tokenizer": self._tokenizer, "against": self._against}
        try:
            found = await self.workbench.desk.ask("data.check", on_progress=self._progress, **asked)
        except UserError as error:
            self._say(str(error), "$error")
            return
        self.found = msgspec.convert(found, Check)
        self._show_report()
        self._show_findings()

    def _progress(self, progress: DeskProgress) -> None:
        if self.is_attached and self.found is None:
            share = f" {progress.done / progress.total:.0%}" if progress.total else ""
            self._say(f"{progress.phase.capitalize()}{share} …   escape stops")

    def _say(self, text: str, style: str = "") -> None:
        self.query_one("#report", Static).update(content(text, style))

    def _show_report(self) -> None:
        if self.found is None:
            return
        width = max(30, self.query_one("#facts").size.width - 1)
        parts = list(fact_lines(self.found))
        for lengths in self.found.lengths:
            parts += ["", *length_lines(lengths, width)]
        if self.found.problem_count:
            parts += ["", *problem_lines(self.found)]
        self._say("\n".join(parts))

    def _show_findings(self) -> None:
        found = self.found.findings if self.found else []
        picks = self.query_one("#findings", PickList)
        width = max((len(f"{one.count:,}") for one in found), default=0)
        picks.show([(one.name, Content.assemble(f"{one.count:>{width},}  ", line(one.name))) for one in found])
        picks.border_title = f"Findings ({len(found)})" if self.found else "Findings"
        self._show_finding()
        self.refresh_bindings()

    @on(OptionList.OptionHighlighted)
    def _show_finding(self) -> None:
        chosen = self._chosen()
        shown = Content(verdict(self.found) if self.found else "")
        if chosen is not None:
            shown = content("\n".join([chosen.sentence, *remedy(chosen), "", "enter shows examples"]))
        self.query_one("#finding", Static).update(shown)

    @on(OptionList.OptionSelected)
    def _open(self) -> None:
        chosen = self._chosen()
        if chosen is not None:
            self.app.push_screen(ExamplesScreen(chosen))

    def _chosen(self) -> Finding | None:
        name = self.query_one("#findings", PickList).chosen
        return next((one for one in self.found.findings if one.name == name), None) if self.found else None

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """A build with fixes needs a report with sources."""
        return bool(self.found and self.found.sources) if action == "build" else True

    def action_build(self) -> None:
        if self.found is not None:
            settings = {**self.found.settings, "sources": self.found.sources, **self.found.fixes()}
            settings.pop("replace", None)
            self.workbench.start_run("build", settings)

    def action_tokenizer(self) -> None:
        names = ["", *(found.name for found in list_tokenizers(self.workbench.workspace))]
        if len(names) == 1:
            self.notify("There is no tokenizer yet.")
            return
        self._tokenizer = names[(names.index(self._tokenizer) + 1) % len(names) if self._tokenizer in names else 0]
        if self._tokenizer:
            find_tokenizer(self.workbench.workspace, self._tokenizer)
        self.notify(f"Lengths in tokens of {self._tokenizer}." if self._tokenizer else "Lengths in characters.")
        self.action_again()

    def action_against(self) -> None:
        """Ask for the evaluation sets; the desk refuses names that there are not."""
        detail = "Datasets or starter sources, separated by commas; none: empty."

        def answered(text: str | None) -> None:
            if text is not None:
                self._against = [name.strip() for name in text.split(",") if name.strip()]
                self.action_again()

        start = ", ".join(self._against) or "starter:probes"
        self.app.push_screen(Ask("Examine against", detail, start, lambda _: None), answered)

    def action_back(self) -> None:
        if self._work is not None:
            self._work.cancel()
        self.dismiss()


class ExamplesScreen(Dialog[None]):
    """The examples of one finding, each with its place."""

    CSS_PATH = "check.tcss"
    AUTO_FOCUS = "Scrolling"
    BINDINGS = [bind("check.close", "enter,q", "close", "Close", "Back to the findings.")]

    def __init__(self, finding: Finding) -> None:
        super().__init__()
        self._finding = finding

    def compose(self) -> ComposeResult:
        finding = self._finding
        parts = [content(f"{finding.name}: {finding.count:,}", "bold"), Content("\n"), content(finding.sentence)]
        for example in finding.examples:
            parts += [Content("\n\n"), content(example.place, "$text-muted"), Content("\n"), content(example.text)]
        for text in remedy(finding):
            parts += [Content("\n\n"), content(text, "$accent")]
        with Vertical(id="examples"), Scrolling():
            yield Static(Content.assemble(*parts))

    def action_close(self) -> None:
        self.dismiss()
