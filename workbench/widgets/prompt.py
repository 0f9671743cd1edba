"""The field in which a prompt is written: enter sends it, another key makes a new line."""

from __future__ import annotations

from dataclasses import dataclass

from rich.text import Text
from textual.events import Key
from textual.message import Message
from textual.widgets import TextArea

from workbench.display import displayable, displayable_line
from workbench.keys import bind

NEWLINE_KEYS = "ctrl+o,shift+enter,alt+enter"
UNKNOWN = "\ufffd"
"""Stands in the field for a character whose visible symbol is longer than one character."""


class Prompt(TextArea):
    """A text area that grows with its text. The text stays as it was typed or pasted; only what is shown is safe."""

    BINDINGS = [
        bind("prompt.send", "enter", "send", "Send", "Send the text to the model."),
        bind("prompt.newline", NEWLINE_KEYS, "newline", "New line", "Begin a new line of the prompt."),
    ]

    @dataclass
    class Sent(Message):
        """The text was sent."""

        text: str

    def __init__(self, placeholder: str, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(placeholder=placeholder, id=id, soft_wrap=True, compact=True, highlight_cursor_line=False)

    def get_line(self, line_index: int) -> Text:
        """The line as shown: one visible character for each of the text's, so that the cursor stays right."""
        text = self.document.get_line(line_index)
        if displayable(text) != text:
            text = "".join(map(_one_character, text))
        return Text(text, end="", no_wrap=True)

    async def _on_key(self, event: Key) -> None:
        """Keys of this widget act here and now, in the order in which they came: after the letters before them."""
        active = None if event.is_printable else self.screen.active_bindings.get(event.key)
        if active is not None and active.node is self and (active.binding.id or "").startswith("prompt."):
            event.stop()
            event.prevent_default()
            await self.run_action(active.binding.action)
        else:
            await super()._on_key(event)

    def take(self, text: str) -> None:
        """Remove a text that was sent; what was typed after it stays."""
        if self.text.startswith(text):
            lines = text.split("\n")
            self.delete((0, 0), (len(lines) - 1, len(lines[-1])), maintain_selection_offset=True)

    def action_send(self) -> None:
        self.post_message(self.Sent(self.text))

    def action_newline(self) -> None:
        self.insert("\n")


def _one_character(char: str) -> str:
    if char == "\t":
        return char  # TextArea expands it
    shown = displayable_line(char)
    return shown if len(shown) == 1 else UNKNOWN
