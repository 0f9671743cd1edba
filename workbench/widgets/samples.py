"""What a model wrote as it learnt: the newest sample first; a continuation in the prompt's line, an answer below it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from workbench.display import content
from workbench.keys import SCROLL_KEYS

SHOWN = 40
"""Samples on the pane."""

LONGEST = 4_000
"""Characters of one sample that are shown."""


class Samples(VerticalScroll, can_focus=True):
    """Samples of one run, the newest first."""

    BINDINGS = [*SCROLL_KEYS]

    def compose(self) -> ComposeResult:
        yield Static(id="samples-text", markup=False)

    def show(self, rows: Sequence[dict[str, Any]], *, absent: str, about: str = "") -> None:
        """Show these rows of samples.jsonl, in their order, with `about` above; `absent` where there are none."""
        parts: list[Content] = []
        step: object = None
        for row in rows:
            if row.get("step") != step or not parts:
                step = row.get("step")
                parts.append(
                    Content.assemble(Content.styled("step ", "$text-muted"), content(_step(step), "bold $primary"))
                )
            prompt, text = (str(row.get(key) or "")[:LONGEST] for key in ("prompt", "text"))
            written = content(text, tabs=4) if text.strip() else Content.styled(_absent(text), "$text-muted italic")
            answers = "\n" if row.get("kind") else ""  # a continuation, which has no kind, goes on in the line
            parts.append(Content.assemble(content(prompt, "$text-muted", tabs=4), answers, written, "\n"))
        above = [content(f"{about}\n", "$text-muted italic")] if about else []
        shown = Content("\n").join([*above, *parts]) if parts else content(absent, "$text-muted")
        self.query_one("#samples-text", Static).update(shown)


def _step(step: object) -> str:
    return f"{step:,}" if isinstance(step, int) else str(step)


def _absent(text: str) -> str:
    """What stands for a text in which nothing is to be seen."""
    return "  (blanks only)" if text else "  (nothing)"
