"""Writing an answer of one's own, in place or in $EDITOR."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static

from workbench.display import content
from workbench.editor import edit_text
from workbench.keys import bind
from workbench.screens.base import Dialog
from workbench.widgets.prompt import Prompt


class Writing(Dialog[str]):
    """A text to write or to mend. Dismissed with it, or with None."""

    CSS_PATH = "writing.tcss"
    AUTO_FOCUS = "Prompt"
    BINDINGS = [bind("writing.editor", "f4", "editor", "Editor", "Write in $EDITOR, with the app set aside.")]

    def __init__(self, title: str, text: str) -> None:
        super().__init__()
        self._title, self._text = title, text

    def compose(self) -> ComposeResult:
        with Vertical(classes="question"):
            yield Static(content(self._title), classes="heading")
            yield Prompt("Write the answer")
            yield Static(content("enter saves   ctrl+o new line   f4 $EDITOR   esc leaves it"), classes="muted")

    def on_mount(self) -> None:
        prompt = self.query_one(Prompt)
        prompt.text = self._text
        prompt.move_cursor(prompt.document.end)

    @on(Prompt.Sent)
    def _sent(self, event: Prompt.Sent) -> None:
        event.stop()
        self.dismiss(event.text)

    def action_editor(self) -> None:
        """Hand the text to the editor, and take it back when that ends."""
        prompt = self.query_one(Prompt)
        text, trouble = edit_text(self.app, prompt.text)
        if trouble:
            self.app.notify(trouble, severity="warning")
        else:
            prompt.text = text
            prompt.move_cursor(prompt.document.end)
