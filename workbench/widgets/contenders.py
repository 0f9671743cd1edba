"""Answers before a person who compares them: side by side where there is room, with one under the cursor."""

from __future__ import annotations

from collections.abc import Sequence

from textual.containers import Container, VerticalScroll
from textual.events import Resize

from stages.store.labels.records import Completion
from workbench.keys import SCROLL_KEYS
from workbench.widgets.candidate import Candidate

COLUMN = 28
"""Cells that an answer needs to stand beside the others."""
ROW = 5
"""Lines that an answer needs: three of its text, and its border."""


class QuestionPane(VerticalScroll, can_focus=True):
    """What the answers are answers to."""

    HELP_TITLE = "The question"
    BINDINGS = [*SCROLL_KEYS]


class Contenders(Container):
    """Holds Candidates by their numbers from 0. The texts come blind: without who wrote them."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.cursor = 0
        self._differences = self._markdown = False

    @property
    def candidates(self) -> list[Candidate]:
        return list(self.query(Candidate))

    async def show(self, texts: Sequence[tuple[str, str]]) -> None:
        """Put these texts in the place of what is there, each with why it ended."""
        with self.app.batch_update():
            await self.put(
                [Completion(id=0, text=text, checkpoint="", ended=ended, author="") for text, ended in texts]
            )

    async def put(self, completions: Sequence[Completion]) -> None:
        """Put completions into the candidates that are there; mount them anew only when their number changes."""
        self.cursor = 0
        if len(self.candidates) == len(completions):
            for candidate, completion in zip(self.candidates, completions, strict=True):
                candidate.put(completion)
        else:
            await self.remove_children()
            await self.mount(*(Candidate(number, one) for number, one in enumerate(completions)))
            self._arrange()
        if self._markdown:
            for candidate in self.candidates:
                await candidate.show_markdown(True)
        self._differ()

    def on_resize(self, event: Resize) -> None:
        self._arrange()

    def move(self, by: int) -> None:
        """The cursor to the next candidate, or the one before."""
        if self.candidates:
            self.at((self.cursor + by) % len(self.candidates))

    def at(self, number: int) -> None:
        """The cursor to a candidate."""
        self.cursor = number
        self.take_focus()
        self._differ()

    def take_focus(self) -> None:
        """Focus the candidate under the cursor, so that it scrolls."""
        if self.candidates:
            self.candidates[self.cursor].reading.focus()

    def toggle_differences(self) -> None:
        """Mark what differs from the one under the cursor, or no longer."""
        self._differences = not self._differences
        self._differ()

    async def toggle_markdown(self) -> None:
        """Lay Markdown out, or no longer."""
        self._markdown = not self._markdown
        fits = [await candidate.show_markdown(self._markdown) for candidate in self.candidates]
        if not all(fits):
            self.notify("Too long for Markdown: shown as it is.")

    def _differ(self) -> None:
        candidates = self.candidates
        other = candidates[self.cursor].completion.text if self._differences and candidates else None
        fits = [one.differ(other if one.number != self.cursor else None) for one in candidates]
        if self._differences and not all(fits):
            self.notify("Too long to compare word by word.")

    def _arrange(self) -> None:
        """Side by side where each has room, else two beside each other, else stacked; low rows scroll instead."""
        count, width = max(1, len(self.candidates)), self.app.size.width
        columns = count if width // count >= COLUMN else 2 if count > 2 and width // 2 >= COLUMN else 1
        rows = -(-count // columns)
        self.styles.grid_size_columns, self.styles.grid_size_rows = columns, rows
        self.styles.grid_rows = "1fr" if self.size.height >= rows * ROW else str(ROW)
