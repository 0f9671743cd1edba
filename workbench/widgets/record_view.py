"""A record in full, roles in their colours, its texts as tokens where they are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stages.store.records import Record
from workbench.records.pieces import pieces
from workbench.widgets.record_list import ROLES
from workbench.widgets.transcript import Transcript

Tokens = Sequence[Sequence[Any]]
"""A text's tokens as the desk tells them: id, text, whether it is special."""


class RecordView(Transcript):
    """Scrolls like a transcript. Tokens differ by their ground in turn, so that their borders are seen."""

    STYLES = (*ROLES, "heading", "note", "rank", "label", "text", "even", "odd", "special")
    COMPONENT_CLASSES = {f"transcript--{style}" for style in STYLES}

    def show(self, record: Record, missing: int = 0, tokens: Mapping[str, Tokens] | None = None) -> None:
        """Show a record, from its top. `missing` characters were left out; `tokens` are those of its texts."""
        self.clear()
        known = tokens or {}

        def count(text: str) -> str:
            return f"{len(known[text]):,} tokens" if text in known else ""

        for text, style in pieces(record, count):
            body = text.removesuffix("\n\n")
            if style == "text" and body in known:
                for number, token in enumerate(known[body]):
                    self.write(str(token[1]), "special" if token[2] else ("even", "odd")[number % 2])
                self.write(text[len(body) :], "note")
            else:
                self.write(text, style)
        if missing:
            self.write(f"\n{missing:,} characters more are not shown.\n", "note")
        self.scroll_home(animate=False, immediate=True)
