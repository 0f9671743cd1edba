"""A field that filters a list as one types."""

from __future__ import annotations

from textual.message import Message

from workbench.keys import bind
from workbench.widgets.fields import LineInput


class FilterField(LineInput):
    """Hidden until it is opened. Enter goes back to the list and keeps the filter, escape clears it."""

    HELP_TITLE = "The filter"
    DEFAULT_CSS = """
    FilterField {
        display: none;
        dock: bottom;
        height: 1;
        margin: 0 1;
    }
    """
    BINDINGS = [
        bind("filter.keep", "enter", "keep", "To the list", "To the list, with the filter as it is."),
        bind("filter.down", "down", "keep", "To the list", "To the list, with the filter as it is.", show=False),
        bind("filter.clear", "escape", "clear", "Clear", "No filter."),
    ]

    class Left(Message):
        """The person is done with the field."""

    def open(self) -> None:
        """Show the field and type into it."""
        self.display = True
        self.focus()

    def action_keep(self) -> None:
        self.display = bool(self.value.strip())
        self.post_message(self.Left())

    def action_clear(self) -> None:
        self.value = ""
        self.action_keep()
