"""Asking a model on the disk as one types: a text above, and below it what the model says, by way of the desk."""

from __future__ import annotations

import asyncio

from textual import on, work
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.events import Key
from textual.widgets import Static, TextArea

from stages.store.errors import UserError
from workbench.display import content, line
from workbench.keys import SCROLL_KEYS
from workbench.screens.base import PlaceScreen
from workbench.widgets.text_field import TextField

WAIT = 0.1
"""Seconds that typing must pause before the model is asked."""


class Answers(VerticalScroll, can_focus=True):
    """What the model says."""

    BINDINGS = [*SCROLL_KEYS]


class AskingScreen(PlaceScreen):
    """Opened on a checkpoint. Subclasses make the field and ask the desk; `called` is what people call the model."""

    PLACE = "runs"
    CSS_PATH = "asking.tcss"
    AUTO_FOCUS = "TextField"

    def __init__(self, checkpoint: str, called: str) -> None:
        super().__init__()
        self.checkpoint, self.called = checkpoint, called

    def field(self) -> TextField:
        """The field, with what it is for in its border."""
        raise NotImplementedError

    async def answer(self, text: str) -> Content:
        """What the model says of a text. May raise UserError, which stands in its place."""
        raise NotImplementedError

    def compose_body(self) -> ComposeResult:
        field = self.field()
        field.add_class("pane")
        yield field
        with Answers(id="answers", classes="pane") as answers:
            answers.border_title = line(self.called)
            yield Static(id="said", markup=False)

    def on_mount(self) -> None:
        self.show_trail("runs", self.called)

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
    @work(exclusive=True, group="ask")
    async def ask(self) -> None:
        """Ask once typing has paused; what was asked before is no longer waited for."""
        await asyncio.sleep(WAIT)
        try:
            said = await self.answer(self.query_one(TextField).text)
        except UserError as error:
            said = content(str(error), "$text-muted")
        self.query_one("#said", Static).update(said)
