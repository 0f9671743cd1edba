"""The records of a dataset, however many: a line each, with search, filter, statistics, and small sets changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from textual import on, work
from textual.app import ComposeResult
from textual.content import Content
from textual.events import Click
from textual.style import Style
from textual.widgets import Static
from textual.worker import Worker

from stages.store.datasets import DatasetInfo, find_dataset
from stages.store.desk import DeskProgress
from stages.store.errors import UserError
from workbench.display import content, displayable_line, line
from workbench.keys import bind
from workbench.records.pages import Pages
from workbench.screens.question import Ask
from workbench.screens.record import RecordScreen
from workbench.screens.record_editing import RecordEditing
from workbench.screens.record_statistics import StatisticsScreen
from workbench.widgets.filter_field import clear_filters
from workbench.widgets.record_list import Line, RecordList

FILTERS = {
    "text": "source:wiki  length>500  words  -words  meta.NAME:value",
    "chat": 'role:system  turns>2  length>500  source:x  "two words"  -words',
    "preference": "annotator:eva  completions=4  length>500  role:system  words",
    "prompts": "answer:yes  length>500  role:system  meta.NAME:value  words",
    "labelled": "label:positive  task:pair  length>500  words  meta.NAME:value",
}


class RecordsScreen(RecordEditing):
    """Browses one split of a dataset at a time. Pages come from the desk; keys never wait for them."""

    PLACE = "data"
    CSS_PATH = ["records.tcss", "../widgets/record_list.tcss"]
    AUTO_FOCUS = "RecordList"
    BINDINGS = [
        bind("records.back", "escape", "back", "Back", "Stop searching; else back to the datasets."),
        bind("records.search", "f", "search", "Find", "Go to the records that have some text, one after the other."),
        bind("records.hit", "n", "hit(1)", "Next hit", "To the next record with the text.", show=False),
        bind("records.hit_before", "N", "hit(-1)", "Hit before", "To the record before with the text.", show=False),
        bind("records.jump", "g", "jump", "Go to", "To a record by its number.", show=False),
        bind("records.split", "tab", "split(1)", "Split", "To the next split: training, validation."),
        bind("records.split_before", "shift+tab", "split(-1)", "Split before", "To the split before.", show=False),
        bind("records.statistics", "s", "statistics", "Statistics", "Counts, lengths, sources, labels."),
        *RecordEditing.KEYS,
    ]

    def __init__(self, dataset: str, split: str = "train") -> None:
        super().__init__()
        self.dataset = dataset
        self.split = split
        self.filter = ""
        self.text = ""
        """What was searched for last."""
        self.info: DatasetInfo | None = None
        self._at_work: Worker[None] | None = None

    def compose_body(self) -> ComposeResult:
        yield Static(id="records-head")
        yield RecordList()
        yield Static(id="records-note")

    def on_mount(self) -> None:
        self.load()
        self.listing.post_message(RecordList.Moved(0))

    @property
    def listing(self) -> RecordList:
        return self.query_one(RecordList)

    def load(self, cursor: int = 0, total: int | None = None) -> None:
        """Read what the dataset says of itself, and show its records; `total` are those the filter leaves."""
        try:
            self.info = find_dataset(self.workbench.workspace, self.dataset).info
        except UserError as error:
            self.workbench.show_error(error)
            return
        splits = self.info.records
        if self.split not in splits:
            self.split = next(iter(splits), "train")
        if total is None:
            total, self.filter = splits.get(self.split, 0), ""
            clear_filters(self)
        self.listing.filter_hint = FILTERS[self.info.kind]
        self.listing.show(Pages(total, self._fetch, self.listing.arrived, self._failed), cursor)
        self._show_head()
        if not total and not self.filter:
            self.note("No records here yet: a adds one.", "$text-muted")

    def ask(self, **more: Any) -> dict[str, Any]:
        """What every question to the desk names."""
        return {"dataset": self.dataset, "split": self.split, "filter": self.filter, **more}

    def note(self, text: str, style: str = "") -> None:
        """Say something in the line below the records."""
        self.query_one("#records-note", Static).update(content(displayable_line(text), style))

    async def _fetch(self, start: int, count: int) -> Sequence[Line]:
        answer = await self.workbench.desk.ask("records.page", **self.ask(start=start, count=count))
        return [(number, pieces) for number, pieces in answer["rows"]]

    def _failed(self, error: UserError) -> None:
        self.workbench.show_error(error)

    def _show_head(self) -> None:
        assert self.info is not None
        parts = [Content.styled(f"{self.info.kind}  ", "$text-muted")]
        for split, count in self.info.records.items():
            here = split == self.split
            told = line(f"{'▌' if here else ' '}{split} {count:,}  ", "bold $primary" if here else "$text-muted")
            parts.append(told.stylize_before(Style.from_meta({"split": split})))
        if self.filter:
            parts.append(line(f"filter {self.filter}: {self.listing.total:,}  ", "$accent"))
        if self.text:
            parts.append(line(f"find {self.text}", "$accent"))
        self.query_one("#records-head", Static).update(Content.assemble(*parts))
        self.show_trail(self.dataset, f"{self.listing.cursor + 1:,} of {self.listing.total:,}")

    @on(RecordList.Moved)
    def _moved(self) -> None:
        total = self.listing.total
        self.show_trail(self.dataset, f"{self.listing.cursor + 1:,} of {total:,}" if total else "empty")

    @on(RecordList.Opened)
    def _opened(self, event: RecordList.Opened) -> None:
        screen = RecordScreen(self.ask(), event.at, self.listing.total)

        def closed(_: object) -> None:
            self.listing.cursor = screen.at

        self.app.push_screen(screen, closed)

    def action_back(self) -> None:
        if self._at_work is not None and self._at_work.is_running:
            self._at_work.cancel()
            self.note("Stopped.", "$text-muted")
        elif self.filter:
            self.load()
        else:
            self.dismiss()

    def action_jump(self) -> None:
        """Ask for a number, and go there."""
        total = self.listing.total

        def check(text: str) -> None:
            number = text.replace(",", "").replace("_", "").strip()
            if not number.isdecimal() or not 1 <= int(number) <= total:
                raise UserError(f"A number from 1 to {total:,}.")

        def answered(text: str | None) -> None:
            if text:
                self.listing.cursor = int(text.replace(",", "").replace("_", "")) - 1

        if total:
            self.app.push_screen(Ask("Go to record", f"1 to {total:,}", "", check), answered)

    def action_split(self, by: int) -> None:
        splits = list(self.info.records) if self.info else []
        if len(splits) > 1:
            self._turn_to(splits[(splits.index(self.split) + by) % len(splits)])

    def on_click(self, event: Click) -> None:
        """Take a click on the name of another split."""
        split = event.style.meta.get("split")
        if self.info is not None and split in self.info.records and split != self.split:
            self._turn_to(split)

    def _turn_to(self, split: str) -> None:
        self.split = split
        self.note("")
        self.load()

    def action_search(self) -> None:
        def answered(text: str | None) -> None:
            if text:
                self.text = text
                self._show_head()
                self._search(self.listing.cursor, 1)

        self.app.push_screen(
            Ask("Search", "Records that have this text, whatever the case.", self.text, _some), answered
        )

    def action_hit(self, step: int) -> None:
        if not self.text:
            self.action_search()
        else:
            self._search(self.listing.cursor + step, step)

    @on(RecordList.Filtered)
    def _filter_changed(self) -> None:
        self._at_work = self._narrow(self.listing.filter_text.strip())

    def action_statistics(self) -> None:
        self.app.push_screen(StatisticsScreen(self.ask()))

    def _search(self, start: int, step: int) -> None:
        self._at_work = self._find(start, step)

    @work(exclusive=True, group="search")
    async def _find(self, start: int, step: int) -> None:
        question = self.ask(text=self.text, start=start, step=step)
        try:
            found = await self.workbench.desk.ask("records.search", on_progress=self._progress, **question)
        except UserError as error:
            self.workbench.show_error(error)
            return
        if found["at"] is None:
            self.note(f"No record has {self.text!r}.", "$warning")
            return
        self.listing.cursor = found["at"]
        self.note("Went around the end." if found["wrapped"] else "n next hit   N hit before", "$text-muted")

    @work(exclusive=True, group="search")
    async def _narrow(self, text: str) -> None:
        if not text:
            if self.filter:
                self.load()
                self.note("")
            return
        question = {**self.ask(), "filter": text}
        try:
            found = await self.workbench.desk.ask("records.count", on_progress=self._progress, **question)
        except UserError as error:
            self.workbench.show_error(error)
            return
        self.filter = text
        self.load(total=found["total"])
        self.note("" if found["total"] else "No record is like that. escape shows all.", "$warning")

    def _progress(self, progress: DeskProgress) -> None:
        if self._at_work is not None and self._at_work.is_running and progress.total:
            share = f"{progress.done / progress.total:.0%}"
            self.note(f"{progress.phase} {share} of {progress.total:,}   escape stops", "$text-muted")


def _some(text: str) -> None:
    if not text:
        raise UserError("Type what to look for.")
