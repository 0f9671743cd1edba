"""One completion before the person who judges it: its number, its text, its length and where it ended."""

from __future__ import annotations

import difflib
import re
from typing import ClassVar

from textual.app import ComposeResult
from textual.containers import ScrollableContainer, Vertical
from textual.content import Content

from stages.store.labels.records import Completion
from workbench.display import content, displayable
from workbench.keys import SCROLL_KEYS
from workbench.widgets.transcript import Transcript

MARKDOWN_LIMIT = 20_000
"""Characters beyond which a text is shown as it is: laying out Markdown takes time that grows with it."""
DIFF_LIMIT = 2_000
"""Words beyond which differences are not looked for."""
_WORDS = re.compile(r"\s+|\w+|[^\w\s]")

ENDED = {"end": "ended", "stop": "stopped", "length": "cut off", "cancelled": "cancelled"}
"""How a completion ended, short enough to stand under a narrow one. What an import says may be anything else."""

READING_KEYS = [*ScrollableContainer.BINDINGS, *(one for one in SCROLL_KEYS if one.id != "scroll.home")]
"""Keys that scroll a text; not g, which goes to a prompt."""


class Reading(Transcript, inherit_bindings=False):
    """Text to be read, with what differs from another text marked."""

    BINDINGS = READING_KEYS
    STYLES: ClassVar[tuple[str, ...]] = ("answer", "differs", "note")
    COMPONENT_CLASSES = {f"transcript--{style}" for style in STYLES}


class Candidate(Vertical):
    """A completion by its number on the screen, from 0."""

    def __init__(self, number: int, completion: Completion) -> None:
        super().__init__(classes="candidate pane")
        self.number, self.completion = number, completion
        self._said = (Content(), Content())
        self._other: str | None = None
        self._markdown = False
        self.say("")

    def compose(self) -> ComposeResult:
        yield Reading()

    def on_mount(self) -> None:
        self._write()

    def put(self, completion: Completion) -> None:
        """Show another completion in the place of this one, as it is."""
        self.completion, self._other = completion, None
        self.say("")
        self._write()

    @property
    def reading(self) -> Reading:
        return self.query_one(Reading)

    def say(self, standing: str) -> None:
        """Show above where the candidate stands (a rank, a rating), below its length and end, in colour once it stands.

        The colour is part of the text: a class would have the style sheet applied to all below, at every key.
        """
        style = "$accent" if standing else ""
        facts = [f"{len(self.completion.text):,} chars", ENDED.get(self.completion.ended, "")]
        parts = [str(self.number + 1), standing], facts
        title, subtitle = (content(" · ".join(filter(None, part)), style) for part in parts)
        if (title, subtitle) != self._said:
            self.border_title, self.border_subtitle = self._said = title, subtitle

    def differ(self, other: str | None) -> bool:
        """Mark what differs from another text, or nothing; False when the texts are too long for that."""
        if other is None and self._other is None:
            return True
        fits = other is None or max(len(_WORDS.findall(text)) for text in (self.completion.text, other)) <= DIFF_LIMIT
        self._other = other if fits else None
        self._write()
        return fits

    async def show_markdown(self, markdown: bool) -> bool:
        """Lay the text out as Markdown, or show it raw; False when it is too long for that."""
        from textual.widgets import Markdown  # slow to import, and wanted by few

        fits = len(self.completion.text) <= MARKDOWN_LIMIT
        self._markdown = markdown and fits
        await self.query(Markdown).remove()
        self.reading.display = not self._markdown
        if self._markdown:
            await self.mount(Markdown(displayable(self.completion.text, tabs=4), open_links=False))
        return fits or not markdown

    def _write(self) -> None:
        text = self.completion.text
        spans = [(part, "differs" if changed else "answer") for part, changed in marked(text, self._other)]
        if not text.strip():
            spans.append(("(nothing)" if not text else "(only spaces)", "note"))
        self.reading.put(spans)


def marked(text: str, other: str | None) -> list[tuple[str, bool]]:
    """The text in pieces, each with whether it stands so in the other text too (False) or not (True)."""
    if other is None or other == text:
        return [(text, False)]
    ours, theirs = _WORDS.findall(text), _WORDS.findall(other)
    matcher = difflib.SequenceMatcher(None, theirs, ours, autojunk=False)
    pieces = [("".join(ours[b1:b2]), tag != "equal") for tag, _, _, b1, b2 in matcher.get_opcodes()]
    return [piece for piece in pieces if piece[0]]
