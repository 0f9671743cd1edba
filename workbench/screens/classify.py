"""Asking a model that labels: a text, and what the model says of it as one types.

╭─ Text · a line each: the premise, the hypothesis ────────────────╮
│ Anna lives in Fossland.                                           │
│ Anna lives in Ravenia.                                            │
╰───────────────────────────────────────────────────────────────────╯
╭─ entails ─────────────────────────────────────────────────────────╮
│ contradiction   ███████████████████████████   91.2%               │
│ neutral         ██▌                             8.0%              │
╰───────────────────────────────────────────────────────────────────╯
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from textual import on, work
from textual.app import ComposeResult
from textual.content import Content
from textual.events import Key
from textual.widgets import Static, TextArea

from stages.store.errors import UserError
from workbench.display import content, line, shortened
from workbench.keys import bind
from workbench.screens.base import PlaceScreen
from workbench.screens.fill import WAIT, Answers
from workbench.widgets.text_field import TextField

LABEL, BAR = 28, 30
"""Cells of a label, and of the bar of a probability of 1."""


class ClassifyScreen(PlaceScreen):
    """Opened on a checkpoint. A line of the field is a text; what the model says stands below at once."""

    PLACE = "runs"
    CSS_PATH = "classify.tcss"
    AUTO_FOCUS = "TextField"
    BINDINGS = [
        bind("classify.edit", "e", "edit", "Edit", "Write the text; escape leaves it."),
        bind("classify.back", "escape", "back", "Back", "Back to where one came from."),
    ]

    def __init__(self, checkpoint: str, called: str) -> None:
        super().__init__()
        self._checkpoint, self._called = checkpoint, called

    def compose_body(self) -> ComposeResult:
        field = TextField(placeholder="A line for each text: of a pair both, of a question it and its options.")
        field.border_title = "Text, a line each"
        field.add_class("pane")
        yield field
        with Answers(id="answers", classes="pane") as answers:
            answers.border_title = line(self._called)
            yield Static(id="said", markup=False)

    def on_mount(self) -> None:
        self.show_trail("runs", self._called)

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
    @work(exclusive=True, group="classify")
    async def _changed(self) -> None:
        """Ask once typing has paused; what was asked before is no longer waited for."""
        await asyncio.sleep(WAIT)
        shown = self.query_one("#said", Static)
        texts = [text for text in self.query_one(TextField).text.splitlines() if text.strip()]
        if not texts:
            shown.update("")
            return
        try:
            found = await self.workbench.desk.ask("classify.of", checkpoint=self._checkpoint, texts=texts)
        except UserError as error:
            shown.update(content(str(error), "$text-muted"))
            return
        shown.update(_told(found))


def _told(found: Mapping[str, Any]) -> Content:
    """Labels with their probabilities, or words with their labels."""
    rows = _words(found["words"]) if "words" in found else [_row(str(r["label"]), r) for r in found["labels"]]
    if found["cut"]:
        rows.append(Content.styled("The text is longer than the model sees: its end is cut.", "$text-warning"))
    return Content("\n").join(rows)


def _words(words: Sequence[Mapping[str, Any]]) -> list[Content]:
    width = min(LABEL, max((len(str(row["word"])) for row in words), default=0))
    return [
        Content.assemble(line(f"{shortened(str(row['word']), width):<{width}}  "), _row(str(row["label"]) or "—", row))
        for row in words
    ]


def _row(label: str, row: Mapping[str, Any]) -> Content:
    share = float(row["probability"])
    return Content.assemble(
        line(f"{shortened(label, LABEL):<{LABEL}} "),
        Content.styled(f"{'█' * round(share * BAR):<{BAR}} ", "$primary"),
        Content(f"{share:6.1%}"),
    )
