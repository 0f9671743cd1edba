"""Writing an answer of one's own, in place or in $EDITOR."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static

from workbench.display import content
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
            yield Static(
                content("enter saves it     ctrl+o new line     f4 $EDITOR     esc leaves it"), classes="muted"
            )

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
        with self.app.suspend():
            text, trouble = edited(prompt.text)
        if trouble:
            self.app.notify(trouble, severity="warning")
        else:
            prompt.text = text
            prompt.move_cursor(prompt.document.end)


def edited(text: str) -> tuple[str, str]:
    """`text` as $VISUAL or $EDITOR (else vi) leaves it, and a sentence when it could not be edited."""
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    descriptor, name = tempfile.mkstemp(suffix=".txt", prefix="workbench-")
    path = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogatepass", newline="") as file:
            file.write(text)
        code = subprocess.call([*shlex.split(command), name])
        if code:
            return text, f"{command} ended with exit code {code}; the text is as it was."
        return path.read_text("utf-8", "replace").removesuffix("\n"), ""
    except (OSError, ValueError) as error:
        return text, f"{command} could not be started: {error}. Set EDITOR."
    finally:
        path.unlink(missing_ok=True)
