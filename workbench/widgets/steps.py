"""The model's life as a row of steps (two rows on a narrow screen), with a cursor."""

from __future__ import annotations

from dataclasses import dataclass

from textual.content import Content
from textual.events import Click
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget

from workbench.display import line
from workbench.keys import bind
from workbench.life.steps import Life, State, Step
from workbench.widgets.picklist import cell

SYMBOLS: dict[State, str] = {
    "done": "✓",
    "running": "▶",
    "paused": "‖",
    "next": "→",
    "failed": "✗",
    "stopped": "■",
    "open": "○",
    "later": "·",
}


STEPS = 8
WIDE = 116
"""Columns from which all steps stand in one row; below, they stand in two."""
CARD = 5
"""Rows of a card, its border included."""

STYLES: dict[State, str] = {
    "done": "$success",
    "running": "$accent",
    "paused": "$primary",
    "next": "$primary",
    "failed": "$error",
    "stopped": "$primary",
    "open": "$border-blurred",
    "later": "$border-blurred",
}


def card(step: Step, width: int, chosen: bool) -> list[Content]:
    """The lines of one step: its title on a border in the colour of its state, its symbol, name and detail inside."""
    style = STYLES[step.state]
    title = cell(Content(step.title), min(len(step.title), width - 6))
    title = title.stylize("bold reverse" if chosen else "bold")
    rule = "─" * (width - 5 - title.cell_length)
    waits = step.state in ("open", "later")
    top = Content.assemble(
        ("╭─ ", style), title.stylize_before("$text-muted" if waits else style), (f" {rule}╮", style)
    )
    name = line(step.name or ("next" if step.state == "next" else ""), "bold")
    first = Content.assemble((f"{SYMBOLS[step.state]} ", style), name)
    parts = [step.detail] if step.state == "failed" else _packed(step.detail, width - 4)
    detail = [row for part in parts for row in line(part, "$text-muted").wrap(width - 4)]
    inside = [first, *detail, *[Content()] * CARD][: CARD - 2]
    rows = [Content.assemble(("│ ", style), cell(row, width - 4), (" │", style)) for row in inside]
    return [top, *rows, Content.styled(f"╰{'─' * (width - 2)}╯", style)]


def _packed(detail: str, width: int) -> list[str]:
    """The parts of a detail on as few lines as they need without being broken."""
    rows: list[str] = []
    for part in detail.split(", "):
        if rows and len(rows[-1]) + 2 + len(part) <= width:
            rows[-1] += f", {part}"
        else:
            rows.append(part)
    return rows


class LifeRow(Widget, can_focus=True):
    """The steps of a life. Enter opens the one under the cursor."""

    HELP_TITLE = "The row of steps"

    BINDINGS = [
        bind("life.right", "right,l", "move(1)", "Next step", "To the step at the right.", show=False),
        bind("life.left", "left,h", "move(-1)", "Previous step", "To the step at the left.", show=False),
        bind("life.down", "down,j", "row(1)", "Down", "To the row below, or to the list below.", show=False),
        bind("life.up", "up,k", "row(-1)", "Up", "To the row above.", show=False),
        bind("life.open", "enter", "open", "Open", "Open the step: what it made, or its form filled in."),
    ]

    cursor: reactive[int] = reactive(0)

    @dataclass
    class Moved(Message):
        """The cursor is on another step."""

        step: Step

    @dataclass
    class Opened(Message):
        """A step is to be opened."""

        step: Step

    def __init__(self) -> None:
        super().__init__()
        self.life: Life | None = None

    @property
    def columns(self) -> int:
        return 8 if self.size.width >= WIDE else 4

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return CARD if width >= WIDE else 2 * CARD

    def render(self) -> Content:
        if self.life is None:
            return Content()
        cards = [
            card(step, self._width(number % self.columns), number == self.cursor and self.has_focus)
            for number, step in enumerate(self.life.steps)
        ]
        rows = [cards[start : start + self.columns] for start in range(0, len(cards), self.columns)]
        return Content("\n").join(Content("").join(lines) for row in rows for lines in zip(*row, strict=True))

    @property
    def step(self) -> Step | None:
        return self.life.steps[self.cursor] if self.life else None

    def show(self, life: Life) -> None:
        """Show a life. The cursor starts on what is next, and follows it: while nobody has moved it away, and from a
        step that has been done meanwhile.
        """
        before, self.life = self.life, life
        if before is None or _left_behind(before.steps[self.cursor], life.steps[self.cursor], before):
            self.cursor = life.steps.index(life.next)
        if before is None or _seen(before) != _seen(life):
            self.refresh()
        self.post_message(self.Moved(life.steps[self.cursor]))

    def watch_cursor(self, cursor: int) -> None:
        if self.life is not None:
            self.post_message(self.Moved(self.life.steps[cursor]))

    def action_move(self, by: int) -> None:
        self.cursor = (self.cursor + by) % STEPS

    def action_row(self, by: int) -> None:
        """One row up or down; beyond the last row, on to the next widget."""
        wanted = self.cursor + by * self.columns
        if 0 <= wanted < STEPS:
            self.cursor = wanted
        elif by > 0:
            self.screen.focus_next()

    def action_open(self) -> None:
        if self.step is not None:
            self.post_message(self.Opened(self.step))

    def on_click(self, event: Click) -> None:
        at = event.get_content_offset(self)
        if at is None or self.life is None:
            return
        ends = [sum(map(self._width, range(column + 1))) for column in range(self.columns)]
        column = next((column for column, end in enumerate(ends) if at.x < end), self.columns - 1)
        self.cursor = min(STEPS - 1, at.y // CARD * self.columns + column)
        if event.chain == 2:
            self.action_open()

    def _width(self, column: int) -> int:
        """Cells of a column: the first ones take what is left over."""
        width, rest = divmod(self.size.width, self.columns)
        return width + (column < rest)


def _left_behind(before: Step, now: Step, life: Life) -> bool:
    """Whether nothing keeps the cursor on a step: it was what came next, or it has just been done."""
    return before.key == life.next.key or (now.state == "done" and before.state != "done")


def _seen(life: Life) -> list[tuple[str, ...]]:
    return [(step.state, step.name, step.detail) for step in life.steps]
