"""Lists that `/` filters, and the field into which the words are typed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual.message import Message
from textual.widget import Widget
from textual.widgets import ContentSwitcher, Input

from workbench.keys import bind
from workbench.widgets.fields import LineInput

NO_MATCH = "Nothing matches; escape shows all."


class Filterable(Widget):
    """A list or table that shows only what has all words of `filter_text`, whatever the case.

    Subclasses show their entries anew in `filter_changed`, or the screen does when it hears `Filtered`.
    """

    FILTERS_AT_ONCE: ClassVar[bool] = True
    """Whether each letter counts; else only enter, where filtering takes long."""

    filter_text: str = ""
    filter_hint: str = "words"
    """What may be typed."""

    class Filtered(Message):
        """The list has another filter now."""

    @dataclass
    class FieldLeft(Message):
        """The person is done with the field of a list's filter."""

        target: Filterable

    def set_filter(self, text: str) -> None:
        """Show only what has the words of `text`."""
        if text != self.filter_text:
            self.filter_text = text
            self.filter_changed()
            self.post_message(self.Filtered())

    @property
    def has_entries(self) -> bool:
        """Whether there is anything to filter."""
        return True

    def filter_changed(self) -> None:
        """Show the entries anew."""

    def passes(self, told: str) -> bool:
        """Whether an entry that reads `told` is shown."""
        told = told.casefold()
        return all(word in told for word in self.filter_text.casefold().split())


class FilterField(LineInput):
    """Stands below its list. Enter goes back to the list and keeps the filter, escape clears it."""

    HELP_TITLE = "The filter"
    DEFAULT_CSS = """
    FilterField {
        height: 1;
        padding: 0 1 !important;
    }
    """
    BINDINGS = [
        bind("filter.keep", "enter", "keep", "To the list", "To the list, with the filter as it is."),
        bind("filter.down", "down", "keep", "To the list", "To the list, with the filter as it is.", show=False),
        bind("filter.clear", "escape", "clear", "Clear", "No filter."),
    ]

    def __init__(self, target: Filterable) -> None:
        super().__init__(value=target.filter_text, placeholder=target.filter_hint)
        self.target = target

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        if self.target.FILTERS_AT_ONCE:
            self.target.set_filter(self.value)

    def action_keep(self) -> None:
        """To the list; an empty field goes away."""
        self.target.set_filter(self.value)
        self.display = bool(self.value.strip())
        self.target.post_message(Filterable.FieldLeft(self.target))

    def action_clear(self) -> None:
        """Show all, and to the list."""
        self.value = ""
        self.action_keep()


async def open_filter(target: Filterable) -> None:
    """Show the field below `target`, or below what `target` stands in where there is no room of its own."""
    field = field_of(target)
    if field is None:
        field = FilterField(target)
        above: Widget = target
        while isinstance(above.parent, Widget) and not _stacks(above.parent):
            above = above.parent
        assert isinstance(above.parent, Widget)
        await above.parent.mount(field, after=above)
    field.display = True
    field.screen.set_focus(field)  # at once: `focus` would come after the keys of the same packet


def field_of(target: Filterable) -> FilterField | None:
    """The field of a list, once there is one."""
    return next((field for field in target.screen.query(FilterField) if field.target is target), None)


def clear_filters(screen: Widget) -> bool:
    """Show all of every list; whether any was filtered."""
    fields = [field for field in screen.query(FilterField) if field.target.filter_text]
    for field in fields:
        field.action_clear()
    return bool(fields)


def _stacks(parent: Widget) -> bool:
    """Whether one more widget in `parent` stands below the others."""
    return parent.layout.name == "vertical" and not isinstance(parent, ContentSwitcher)
