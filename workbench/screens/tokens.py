"""Tokens: a text as a tokenizer sees it, another tokenizer beside it, and how well both fit a dataset."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.events import Key
from textual.widgets import Static, TextArea

from stages.store.datasets import list_datasets
from stages.store.desk import DeskProgress
from stages.store.errors import UserError
from stages.store.tokenizers import list_tokenizers
from workbench.display import content, displayable_line, line, looks_same
from workbench.keys import SCROLL_KEYS, bind
from workbench.records.token_facts import Facts, counted, fertility_lines, longest, never
from workbench.screens.base import PlaceScreen
from workbench.screens.pick import Pick
from workbench.widgets.text_field import TextField
from workbench.widgets.token_strip import TokenStrip

FIRST = "The quick brown fox jumps over 12,345 lazy dogs. Größe, naïve, 日本語 and 🙂"
"""What stands in the field at first."""
WAIT = 0.05
"""Seconds that typing must pause before the desk is asked."""
LONGEST = 20_000
"""Characters of a record that are shown."""
LOOKED_AT = 16
"""Megabytes of a dataset that fertility is counted over."""
NONE = "none"


class Fit(VerticalScroll, can_focus=True):
    BINDINGS = [*SCROLL_KEYS]


class TokensScreen(PlaceScreen):
    """Opened on a tokenizer. Typing shows the text's tokens at once."""

    PLACE = "data"
    CSS_PATH = ["tokens.tcss", "../widgets/token_strip.tcss"]
    AUTO_FOCUS = "#first"
    BINDINGS = [
        bind("tokens.edit", "e", "edit", "Edit", "Write a text of one's own; escape leaves it."),
        bind("tokens.ids", "i", "ids", "Ids", "The ids of the tokens, on and off."),
        bind("tokens.compare", "c", "compare", "Compare", "A second tokenizer beside it, or none."),
        bind("tokens.choose", "t", "choose", "Tokenizer", "Another tokenizer."),
        bind("tokens.dataset", "f", "dataset", "Fit", "Fertility, and tokens that never occur, over a dataset."),
        bind("tokens.record", "n,right", "record(1)", "Record", "The next record of the dataset as the text."),
        bind("tokens.previous", "p,left", "record(-1)", "Before", "The record before.", show=False),
        bind("tokens.back", "escape", "back", "Back", "Back to where one came from."),
    ]

    def __init__(self, tokenizer: str = "") -> None:
        super().__init__()
        self.names = [tokenizer, ""]
        self.dataset = ""
        self.at = -1
        self._facts: dict[str, Facts] = {}
        self._shown = Content()

    def compose_body(self) -> ComposeResult:
        field = TextField(FIRST)
        field.border_title = "Text"
        field.add_class("pane")
        yield field
        with Horizontal(id="strips"):
            for place in ("first", "second"):
                strip = TokenStrip(id=place)
                strip.add_class("pane")
                yield strip
        with Fit(id="fit", classes="pane") as fit:
            fit.border_title = "How it fits a dataset"
            yield Static(id="facts")

    def on_mount(self) -> None:
        found = {entry.name: entry.info for entry in list_tokenizers(self.workbench.workspace)}
        if not self.names[0]:
            self.names[0] = next(iter(found), "")
        if not self.names[0]:
            self.query_one("#first", TokenStrip).say("There is no tokenizer yet: in Data, t trains one.")
        datasets = [entry.name for entry in list_datasets(self.workbench.workspace)]
        known = found.get(self.names[0])
        self.dataset = known.dataset if known is not None and known.dataset in datasets else ""
        self._changed()

    def action_back(self) -> None:
        self.dismiss()

    def on_key(self, event: Key) -> None:
        if event.key == "escape" and isinstance(self.focused, TextField):
            event.stop()
            event.prevent_default()
            self.query_one("#first").focus()

    def action_edit(self) -> None:
        self.query_one(TextField).focus()

    def action_ids(self) -> None:
        for strip in self.query(TokenStrip):
            strip.show_ids(not strip.with_ids)

    def action_choose(self) -> None:
        self._ask("Which tokenizer?", self._tokenizers(), partial(self._chosen, 0))

    def action_compare(self) -> None:
        others = [name for name in self._tokenizers() if name != self.names[0]]
        if not others:
            self.notify("There is no second tokenizer yet: in Data, t trains one.")
        elif self.names[1]:
            self._chosen(1, NONE)
        else:
            self._ask("Compare with which tokenizer?", others, partial(self._chosen, 1))

    def action_dataset(self) -> None:
        names = [found.name for found in list_datasets(self.workbench.workspace)]
        self._ask("How it fits which dataset?", names, self._dataset_chosen)

    @work(exclusive=True, group="record")
    async def action_record(self, by: int) -> None:
        """Put a record's texts into the field."""
        if not self.dataset:
            self.notify("Choose a dataset first (f).")
            return
        at = max(0, self.at + by)
        try:
            answer = await self.workbench.desk.ask(
                "records.read", dataset=self.dataset, split="train", start=at, shown=LONGEST
            )
        except UserError as error:
            self.workbench.show_error(error)
            return
        if answer["records"]:
            self.at = at
            self.query_one(TextField).text = "\n".join(_texts(answer["records"][0]["record"]))[:LONGEST]
            self._show_trail()

    def _ask(self, title: str, names: Sequence[str], then: Any) -> None:
        if not names:
            self.notify("There is nothing to choose from yet.")
        elif len(names) == 1:
            then(names[0])
        else:
            self.app.push_screen(Pick(title, names), then)

    def _chosen(self, place: int, name: str | None) -> None:
        if name is not None:
            self.names[place] = "" if name == NONE else name
            self._changed()

    def _dataset_chosen(self, name: str | None) -> None:
        if name is not None:
            self.dataset, self.at = name, -1
            self._facts.clear()
            self._changed()

    def _changed(self) -> None:
        """Something else is shown: ask for all of it."""
        self.query_one("#second").display = bool(self.names[1])
        self._show_trail()
        self.tokenize()
        self.count()

    @on(TextArea.Changed)
    def _typed(self) -> None:
        self.tokenize()

    @work(exclusive=True, group="tokens")
    async def tokenize(self) -> None:
        """Ask for the tokens of the text, once typing pauses, and show them."""
        await asyncio.sleep(WAIT)
        fields, strips = list(self.query(TextField)), list(self.query(TokenStrip))
        if not fields or len(strips) != len(self.names):
            return  # the screen was left while it waited
        text = fields[0].text
        for name, strip in zip(self.names, strips, strict=True):
            if not name:
                continue
            try:
                (tokens,) = await self.workbench.desk.ask("tokens.of", tokenizer=name, texts=[text])
            except UserError as error:
                strip.border_title = line(name)
                strip.say(str(error))
                continue
            strip.border_title = content(f"{displayable_line(name)} · {counted(tokens, text)}")
            strip.show(tokens)

    @work(exclusive=True, group="facts")
    async def count(self) -> None:
        """Ask how well the tokenizers fit, and show it. Leaving the screen ends it."""
        fit = self.query_one(Fit)
        fit.border_title = "How it fits a dataset"
        for name in filter(None, self.names):
            if name not in self._facts:
                try:
                    self._facts[name] = await self.workbench.desk.ask(
                        "tokens.facts",
                        on_progress=partial(self._counting, name),
                        tokenizer=name,
                        dataset=self.dataset,
                        megabytes=LOOKED_AT,
                    )
                except UserError as error:
                    self._say([content(str(error), "$text-error")])
                    return
            self._show_facts()
        fit.border_title = "How it fits a dataset"

    def _counting(self, name: str, progress: DeskProgress) -> None:
        share = f" {progress.done / progress.total:.0%}" if progress.total else ""
        self.query_one(Fit).border_title = content(f"{displayable_line(name)}: {progress.phase}{share}")

    def _show_facts(self) -> None:
        parts: list[Content] = []
        for name in filter(None, self.names):
            if name not in self._facts:
                continue
            facts = self._facts[name]
            parts.append(content(f"{displayable_line(name)}, {facts['vocab_size']:,} entries", "bold $primary"))
            parts += [content(row) for row in fertility_lines(facts)]
            if "dataset" in facts:
                parts.append(content(f"  {never(facts)}"))
            parts.append(content(f"  longest: {longest(facts)}"))
        if not self.dataset:
            parts.append(content("f counts over a dataset: tokens a word, bytes a token, and what never occurs."))
        self._say(parts)

    def _say(self, parts: list[Content]) -> None:
        shown = Content("\n").join(parts)
        if not looks_same(shown, self._shown):
            self._shown = shown
            self.query_one("#facts", Static).update(shown)

    def _show_trail(self) -> None:
        record = [f"{self.dataset} {self.at + 1:,}"] if self.at >= 0 else []
        self.show_trail("tokens", *filter(None, self.names), *record)

    def _tokenizers(self) -> list[str]:
        return [found.name for found in list_tokenizers(self.workbench.workspace)]


def _texts(record: dict[str, Any]) -> list[str]:
    """Every text of a record as the desk tells it."""
    said = [message["content"] for message in record.get("messages", [])]
    whole = [record["text"]] if "text" in record else []
    answer = [record["answer"]] if record.get("answer") else []
    return [*whole, *said, *record.get("completions", []), *record.get("texts", []), *answer]
