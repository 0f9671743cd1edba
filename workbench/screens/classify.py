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

from collections.abc import Mapping, Sequence
from typing import Any

from textual.content import Content

from workbench.display import line, shortened
from workbench.keys import bind
from workbench.screens.asking import AskingScreen
from workbench.widgets.text_field import TextField

LABEL, BAR = 28, 30
"""Cells of a label, and of the bar of a probability of 1."""


class ClassifyScreen(AskingScreen):
    """A line of the field is a text."""

    BINDINGS = [
        bind("classify.edit", "e", "edit", "Edit", "Write the text; escape leaves it."),
        bind("classify.back", "escape", "back", "Back", "Back to where one came from."),
    ]

    def field(self) -> TextField:
        field = TextField(placeholder="A line for each text: of a pair both, of a question it and its options.")
        field.border_title = "Text, a line each"
        return field

    async def answer(self, text: str) -> Content:
        texts = [each for each in text.splitlines() if each.strip()]
        if not texts:
            return Content()
        return _told(await self.workbench.desk.ask("classify.of", checkpoint=self.checkpoint, texts=texts))


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
