"""The end of a log, following it while one looks at its end."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from textual.widgets import Log

from workbench.display import displayable
from workbench.keys import SCROLL_KEYS
from workbench.widgets.flow import Flow, cells

LINES = 2_000
"""Lines that are kept."""

LONGEST = 10_000
"""Characters of one line that are kept and shown: its last."""


class LogTail(Log):
    """A log of foreign text. New lines appear at the end; whoever has scrolled up stays there.

    A line that is longer than the pane is wide goes on in the next.
    """

    HELP_TITLE = "The log"
    DEFAULT_CSS = "LogTail { overflow-x: hidden; }"
    BINDINGS = [*SCROLL_KEYS]

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002  (the name that Textual gives it)
        super().__init__(highlight=False, max_lines=LINES, auto_scroll=True, id=id)
        self._kept: deque[str] = deque([""], maxlen=LINES)
        """Lines as they came, the last of which may still grow."""
        self._wrapped_at = 0
        """Cells of a row; 0 while the pane is not shown, and nothing is wrapped."""
        self._last_rows = 0
        """Rows that the last line takes."""

    def add(self, text: str) -> None:
        """Append text; a line may come in parts."""
        if not text:
            return
        first, *more = displayable(text.replace("\r\n", "\n").replace("\r", "\n"), tabs=8).split("\n")
        lines = [line[-LONGEST:] for line in (self._kept[-1] + first, *more)]
        self._kept[-1] = lines[0]
        self._kept.extend(lines[1:])
        at_end = self.is_vertical_scroll_end
        self._take_back_last()  # where the rows of a line break depends on all of it
        self._write(lines, at_end=at_end)

    def clear(self) -> LogTail:
        """Forget all lines."""
        self._kept = deque([""], maxlen=LINES)
        super().clear()
        return self

    def on_resize(self) -> None:
        if self.scrollable_content_region.width != self._wrapped_at:
            self._wrap()

    def _wrap(self) -> None:
        """Lay all lines out for the width there is now."""
        at_end, row = self.is_vertical_scroll_end, self.scroll_y
        self._wrapped_at = self.scrollable_content_region.width
        super().clear()
        self._write(self._kept, at_end=at_end)
        if not at_end:
            self.scroll_to(y=row, animate=False, immediate=True)

    def _take_back_last(self) -> None:
        """Take the rows of the last line away; what is written next stands in their place."""
        taken = min(self._last_rows, len(self._lines))
        if taken:
            first = len(self._lines) - taken
            self.refresh_lines(first, taken)
            self._lines[first:] = [""]

    def _write(self, lines: Iterable[str], *, at_end: bool) -> None:
        rows = [self._rows(line) for line in lines]
        self._last_rows = len(rows[-1])
        self.write("\n".join(row for part in rows for row in part), scroll_end=at_end)

    def _rows(self, line: str) -> list[str]:
        if not self._wrapped_at or cells(line) <= self._wrapped_at:
            return [line]
        flow = Flow(self._wrapped_at)
        flow.add(line, "")
        return ["".join(text for text, _ in row) for row in flow.lines]
