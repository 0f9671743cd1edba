"""Text as its tokens, each on a ground of its own: what a tokenizer sees, or which tokens a model is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from textual.selection import Selection

from workbench.widgets.transcript import Transcript

Token = Sequence[Any]
"""As the desk tells them: id, the text it shows, whether it is special, and more."""

BAR = "│"
"""Parts tokens where colours cannot."""

SPACE = "\u00a0"
"""Stands for a space: lines are not broken at it, so that none vanishes at the end of one."""

LOW = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
"""Ids are written low, or they would be read as part of the text."""


class TokenStrip(Transcript):
    """Scrolls like a transcript. Neighbours differ by their ground; without colours a bar stands between them.

    A style for each token may be given instead: of STYLES, or of those that a subclass adds.
    """

    STYLES: ClassVar[tuple[str, ...]] = ("even", "odd", "special", "id", "bar", "trained", "ignored", "cut", "note")
    COMPONENT_CLASSES = {f"transcript--{style}" for style in STYLES}

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.with_ids = False
        self._tokens: Sequence[Token] = ()
        self._token_styles: Sequence[str] | None = None

    @property
    def tokens(self) -> Sequence[Token]:
        return self._tokens

    @property
    def separated(self) -> bool:
        """Whether bars part the tokens: without colours, on ids, and with the terminal's own sixteen colours."""
        return self.with_ids or self.app.no_color or self.app.current_theme.ansi

    def show(self, tokens: Sequence[Token], styles: Sequence[str] | None = None) -> None:
        """Show these tokens from the top, each in its style; without `styles`, in turn, special ones apart."""
        self._tokens, self._token_styles = tokens, styles
        self._draw()
        self.scroll_home(animate=False, immediate=True)

    def say(self, sentence: str) -> None:
        """Show a sentence in place of tokens."""
        self._tokens, self._token_styles = (), None
        self.clear()
        self.write(sentence, "note")

    def show_ids(self, with_ids: bool) -> None:
        """Show each token's id behind it, or not."""
        self.with_ids = with_ids
        self._draw()

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        found = super().get_selection(selection)
        return None if found is None else (found[0].replace(SPACE, " "), found[1])

    def _draw(self) -> None:
        """Write everything anew: each piece by itself, as the wrapping keeps what stands."""
        self.clear()
        separated, styles = self.separated, self._token_styles
        for number, (token, text, special, *_) in enumerate(self._tokens):
            plain = "special" if special else ("even", "odd")[number % 2]
            ends_line = text.endswith("\n")
            self.write(text.replace("\n", "␊").replace(" ", SPACE), styles[number] if styles else plain)
            if self.with_ids:
                self.write(str(token).translate(LOW), "id")
            if separated:
                self.write(BAR, "bar")
            if ends_line:
                self.write("\n", "note")
