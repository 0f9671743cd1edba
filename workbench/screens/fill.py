"""Filling blanks with BERT or T5: a text with ___ in it, and for each blank the candidates with their probabilities.

╭─ Text ──────────────────────────────────────────────────────────╮
│ The capital of France is ___.                                    │
╰──────────────────────────────────────────────────────────────────╯
╭─ bert@2000 ─────────────────────────────────────────────────────╮
│ The capital of France is Paris.                                  │
│                                                                  │
│ blank 1   Paris   ███████████████████   91.2%                    │
│           Lyon    █▌                     4.0%                    │
╰──────────────────────────────────────────────────────────────────╯
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from textual import on, work
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.events import Key
from textual.widgets import Static, TextArea

from stages.store.errors import UserError
from workbench.display import content, line, shortened
from workbench.keys import SCROLL_KEYS, bind
from workbench.screens.base import PlaceScreen
from workbench.widgets.text_field import TextField

FIRST = "The opposite of hot is ___."
"""What stands in the field at first."""
LOADING = "Loading the model …"
WAIT = 0.1
"""Seconds that typing must pause before the model is asked."""
CANDIDATES = 8
WORD, BAR = 18, 30
"""Cells of a candidate's text, and of the bar of a probability of 1."""


class Answers(VerticalScroll, can_focus=True):
    BINDINGS = [*SCROLL_KEYS]


class FillScreen(PlaceScreen):
    """Opened on a checkpoint. Typing fills the blanks at once."""

    PLACE = "runs"
    CSS_PATH = "fill.tcss"
    AUTO_FOCUS = "TextField"
    BINDINGS = [
        bind("fill.edit", "e", "edit", "Edit", "Write the text; escape leaves it."),
        bind("fill.back", "escape", "back", "Back", "Back to where one came from."),
    ]

    def __init__(self, checkpoint: str, called: str) -> None:
        super().__init__()
        self._checkpoint, self._called = checkpoint, called

    def compose_body(self) -> ComposeResult:
        field = TextField(FIRST)
        field.border_title = "Text, with ___ for a blank"
        field.add_class("pane")
        yield field
        with Answers(id="answers", classes="pane") as answers:
            answers.border_title = line(self._called)
            yield Static(content(LOADING, "$text-muted"), id="filled", markup=False)

    def on_mount(self) -> None:
        self.show_trail("runs", self._called)
        self._changed()

    def on_key(self, event: Key) -> None:
        if event.key == "escape" and isinstance(self.focused, TextField):
            event.stop()
            event.prevent_default()
            self.query_one(Answers).focus()

    def action_edit(self) -> None:
        self.query_one(TextField).focus()

    def action_back(self) -> None:
        self.dismiss(None)

    @on(TextArea.Changed)
    @work(exclusive=True, group="fill")
    async def _changed(self) -> None:
        """Ask once typing has paused; what was asked before is no longer waited for."""
        await asyncio.sleep(WAIT)
        shown = self.query_one("#filled", Static)
        text = self.query_one(TextField).text
        try:
            found = await self.workbench.desk.ask("fill.of", checkpoint=self._checkpoint, text=text, count=CANDIDATES)
        except UserError as error:
            shown.update(content(str(error), "$text-muted"))
            return
        shown.update(_told(found))


def _told(found: Mapping[str, Any]) -> Content:
    """The filled text, and below it the candidates of each blank."""
    parts = [content(str(found["text"]), "bold", tabs=4)]
    for number, candidates in enumerate(found["blanks"], 1):
        rows = []
        for place, candidate in enumerate(candidates):
            share = float(candidate["probability"])
            head = f"blank {number}" if place == 0 else ""
            word = shortened(str(candidate["text"]), WORD)
            rows.append(
                Content.assemble(
                    Content.styled(f"{head:<9} ", "$text-muted"),
                    Content(f"{word:<{WORD}} "),
                    Content.styled(f"{'█' * round(share * BAR):<{BAR}} ", "$primary"),
                    Content(f"{share:6.1%}"),
                )
            )
        parts.append(Content("\n").join(rows))
    return Content("\n\n").join(parts)
