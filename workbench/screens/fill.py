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

from collections.abc import Mapping
from typing import Any

from textual.content import Content
from textual.widgets import Static

from workbench.display import content, shortened
from workbench.keys import bind
from workbench.screens.asking import AskingScreen
from workbench.widgets.text_field import TextField

FIRST = "The opposite of hot is ___."
"""What stands in the field at first."""
LOADING = "Loading the model …"
CANDIDATES = 8
WORD, BAR = 18, 30
"""Cells of a candidate's text, and of the bar of a probability of 1."""


class FillScreen(AskingScreen):
    """Typing fills the blanks at once."""

    BINDINGS = [
        bind("fill.edit", "e", "edit", "Edit", "Write the text; escape leaves it."),
        bind("fill.back", "escape", "back", "Back", "Back to where one came from."),
    ]

    def field(self) -> TextField:
        field = TextField(FIRST)
        field.border_title = "Text, with ___ for a blank"
        return field

    def on_mount(self) -> None:
        self.query_one("#said", Static).update(content(LOADING, "$text-muted"))
        self.ask()

    async def answer(self, text: str) -> Content:
        count = CANDIDATES
        return _told(await self.workbench.desk.ask("fill.of", checkpoint=self.checkpoint, text=text, count=count))


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
