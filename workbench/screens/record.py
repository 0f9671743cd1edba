"""One record in full, with all its fields; its neighbours by a key, its texts as tokens by another."""

from __future__ import annotations

from typing import Any

from textual import work
from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from stages.store.datasets import find_dataset
from stages.store.errors import UserError
from stages.store.handmade import record_from
from stages.store.records import Record, texts_in
from stages.store.tokenizers import list_tokenizers
from workbench.display import line
from workbench.keys import bind
from workbench.screens.base import PlaceScreen
from workbench.screens.pick import Pick
from workbench.widgets.record_view import RecordView, Tokens

LONGEST = 200_000
"""Characters of texts that are shown as tokens."""


class RecordScreen(PlaceScreen):
    """Shows the record at a place of a view of records. When it closes, `at` is the place one has come to."""

    PLACE = "data"
    CSS_PATH = ["records.tcss", "../widgets/record_list.tcss"]
    AUTO_FOCUS = "RecordView"
    BINDINGS = [
        bind("record.back", "escape,enter", "back", "Back", "To the list of records."),
        bind("record.next", "n,right", "turn(1)", "Next", "The next record."),
        bind("record.previous", "p,left", "turn(-1)", "Previous", "The record before."),
        bind("record.tokens", "t", "tokens", "Tokens", "The texts as tokens, on and off."),
        bind("record.tokenizer", "T", "tokenizer", "Tokenizer", "Choose another tokenizer.", show=False),
    ]

    tokenizer = ""
    """The tokenizer chosen last, for all records."""

    def __init__(self, view: dict[str, Any], at: int, total: int) -> None:
        """`view` is what every question to the desk names: dataset, split, filter."""
        super().__init__()
        self._view, self.at, self._total = view, at, total
        self.record: Record | None = None
        self._missing = 0
        self._number = at
        self._with_tokens = False

    def compose_body(self) -> ComposeResult:
        yield Static(id="record-head")
        yield RecordView()

    def on_mount(self) -> None:
        self.show_record()

    @work(exclusive=True, group="record")
    async def show_record(self) -> None:
        """Fetch the record, then its tokens where they are wanted, and show both."""
        desk, workspace = self.workbench.desk, self.workbench.workspace
        self._show_head()
        try:
            answer = await desk.ask("records.read", **self._view, start=self.at)
            entries = answer["records"]
            if not entries:
                raise UserError("The record is no longer there.", "Go back to the list.")
            record = record_from(entries[0]["record"], find_dataset(workspace, self._view["dataset"]).info.kind)
            assert record is not None
            self.record, self._missing, self._number = record, entries[0]["cut"], entries[0]["number"]
            tokens = await self._tokens(record) if self._with_tokens else {}
        except UserError as error:
            self.workbench.show_error(error)
            self._with_tokens = False
            if self.record is None:
                return
            record, tokens = self.record, {}
        self.query_one(RecordView).show(record, self._missing, tokens)
        self._show_head(sum(map(len, tokens.values())) if tokens else None)

    async def _tokens(self, record: Record) -> dict[str, Tokens]:
        texts = list(dict.fromkeys(text for text in texts_in(record) if text))
        if sum(map(len, texts)) > LONGEST:
            raise UserError(f"Texts of more than {LONGEST:,} characters are not shown as tokens.")
        found = await self.workbench.desk.ask("tokens.of", tokenizer=RecordScreen.tokenizer, texts=texts)
        return dict(zip(texts, found, strict=True))

    def action_back(self) -> None:
        self.dismiss()

    def action_turn(self, by: int) -> None:
        at = self.at + by
        if 0 <= at < self._total:
            self.at = at
            self.show_record()

    def action_tokens(self) -> None:
        """Tokens on and off; a tokenizer is chosen the first time."""
        if self._with_tokens:
            self._with_tokens = False
            self.show_record()
        elif RecordScreen.tokenizer in self._tokenizers():
            self._with_tokens = True
            self.show_record()
        else:
            self.action_tokenizer()

    def action_tokenizer(self) -> None:
        names = self._tokenizers()
        if not names:
            self.notify("There is no tokenizer yet: in Data, t trains one.")
        elif len(names) == 1:
            self._chosen(names[0])
        else:
            self.app.push_screen(Pick("Tokens of which tokenizer?", names), self._chosen)

    def _chosen(self, name: str | None) -> None:
        if name is not None:
            RecordScreen.tokenizer, self._with_tokens = name, True
            self.show_record()

    def _tokenizers(self) -> list[str]:
        return [found.name for found in list_tokenizers(self.workbench.workspace)]

    def _show_head(self, tokens: int | None = None) -> None:
        parts = [line(f"record {self._number + 1:,}", "bold")]
        if self._view["filter"]:
            parts.append(line(f"   {self.at + 1:,} of {self._total:,} for {self._view['filter']}", "$text-muted"))
        if self.record is not None:
            characters = sum(map(len, texts_in(self.record))) + self._missing
            parts.append(line(f"   {characters:,} characters", "$text-muted"))
        if tokens is not None:
            parts.append(line(f"   {tokens:,} tokens of {RecordScreen.tokenizer}", "$accent"))
        self.query_one("#record-head", Static).update(Content.assemble(*parts))
        self.show_trail(self._view["dataset"], self._view["split"], f"{self.at + 1:,} of {self._total:,}")
