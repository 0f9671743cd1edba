"""A checkpoint's model card, to read, and written as Markdown with its curves as a picture."""

from __future__ import annotations

from pathlib import Path

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static

from workbench.display import content, line
from workbench.screens.base import Dialog
from workbench.screens.check import Scrolling


class CardScreen(Dialog[None]):
    """The text of a card, and where it was written. `workbench card` prints the same."""

    CSS_PATH = "card.tcss"
    AUTO_FOCUS = "Scrolling"

    def __init__(self, name: str, markdown: str, folder: Path) -> None:
        super().__init__()
        self._name, self._markdown, self._folder = name, markdown, folder

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = line(f"model card of {self._name}")
            box.border_subtitle = "j k scroll · esc closes"
            yield Static(line(f"written to {self._folder}", "$text-muted"))
            with Scrolling():
                yield Static(content(self._markdown, tabs=4))
