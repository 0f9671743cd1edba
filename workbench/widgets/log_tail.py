"""The end of a log, following it while one looks at its end."""

from __future__ import annotations

from textual.widgets import Log

from workbench.display import displayable
from workbench.keys import SCROLL_KEYS

LINES = 2_000
"""Lines that are kept."""


class LogTail(Log):
    """A log of foreign text. New lines appear at the end; whoever has scrolled up stays there."""

    BINDINGS = [*SCROLL_KEYS]

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002  (the name that Textual gives it)
        super().__init__(highlight=False, max_lines=LINES, auto_scroll=True, id=id)

    def add(self, text: str) -> None:
        """Append text; a line may come in parts."""
        if text:
            text = text.replace("\r\n", "\n").replace("\r", "\n")
            self.write(displayable(text, tabs=8), scroll_end=self.is_vertical_scroll_end)
