"""A field for text of several lines, which stays as it was typed; only what is shown of it is made harmless."""

from __future__ import annotations

from rich.text import Text
from textual.widgets import TextArea

from workbench.display import displayable, displayable_line

UNKNOWN = "\ufffd"
"""Stands in the field for a character whose visible symbol is longer than one character."""


class TextField(TextArea):
    """Grows with its text. Tab leaves it."""

    def __init__(self, text: str = "", placeholder: str = "") -> None:
        super().__init__(
            text,
            placeholder=placeholder,
            soft_wrap=True,
            compact=True,
            highlight_cursor_line=False,
            tab_behavior="focus",
        )

    def get_line(self, line_index: int) -> Text:
        """The line as shown: one visible character for each of the text's, so that the cursor stays right."""
        text = self.document.get_line(line_index)
        if displayable(text) != text:
            text = "".join(map(_one_character, text))
        return Text(text, end="", no_wrap=True)


def _one_character(char: str) -> str:
    if char == "\t":
        return char  # TextArea expands it
    shown = displayable_line(char)
    return shown if len(shown) == 1 else UNKNOWN
