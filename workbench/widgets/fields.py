"""Editors of one line: text, and a choice among a few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual.content import Content
from textual.events import Blur, Click, Focus, Key
from textual.message import Message
from textual.reactive import reactive
from textual.style import Style
from textual.widget import Widget
from textual.widgets import Input
from textual.widgets.input import Selection

from workbench.display import displayable_line, line, shortened
from workbench.keys import bind


class LineInput(Input):
    """A text field of one row. Characters that act on a terminal cannot be typed or pasted into it.

    Of a text that is longer than the field its beginning is in view, until the cursor is moved to its end.
    """

    HELP_TITLE = "The field"

    def __init__(self, value: str = "", placeholder: str = "") -> None:
        super().__init__(
            displayable_line(value), placeholder=displayable_line(placeholder), compact=True, select_on_focus=False
        )

    def _on_focus(self, event: Focus) -> None:
        """Select the text, the cursor at its beginning; a click puts it elsewhere."""
        if not event.from_app_focus:
            self.selection = Selection(len(self.value), 0)

    def _on_blur(self, event: Blur) -> None:
        self.scroll_to(x=0, animate=False, immediate=True)

    async def _on_key(self, event: Key) -> None:
        """Act on keys in the order in which they were typed, however fast.

        Textual runs a binding only after its key has bubbled up to the app, behind characters that arrived with it in
        one packet, as they do over a slow line: ctrl+u would erase what was typed after it, and what follows a tab
        would land in the field before.
        """
        focused = self.screen.focused
        if focused is not None and focused is not self:
            event.stop().prevent_default()
            focused.post_message(Key(event.key, event.character))
            return
        active = self.screen.active_bindings.get(event.key)
        if active is not None and active.enabled and not self.check_consume_key(event.key, event.character):
            event.stop().prevent_default()
            await self.app.run_action(active.binding.action, active.node)
            return
        await super()._on_key(event)

    def replace(self, text: str, start: int, end: int) -> None:
        super().replace("".join(char for char in text if displayable_line(char) == char), start, end)


class Choice(Widget, can_focus=True):
    """One of a few options, all shown when they fit: `● bpe  ○ byte`, else `‹ bpe › 1/7`."""

    HELP_TITLE = "The choice"

    BINDINGS = [
        bind("choice.next", "right,l,space", "turn(1)", "Next", "The next option.", show=False),
        bind("choice.previous", "left,h", "turn(-1)", "Previous", "The option before.", show=False),
    ]

    value: reactive[str] = reactive("", init=False)

    @dataclass
    class Changed(Message):
        choice: Choice
        value: str

        @property
        def control(self) -> Choice:
            return self.choice

    def __init__(self, options: Sequence[str], value: str = "") -> None:
        super().__init__()
        self.options = tuple(options)
        self.set_reactive(Choice.value, value if value in self.options or not self.options else self.options[0])

    def watch_value(self, value: str) -> None:
        self.post_message(self.Changed(self, value))

    def action_turn(self, by: int) -> None:
        """Choose the option `by` places further, around the end."""
        if self.options:
            self.value = self.options[(self._index() + by) % len(self.options)]

    def on_click(self, event: Click) -> None:
        if isinstance(index := event.style.meta.get("option"), int):
            self.value = self.options[index]

    def render(self) -> Content:
        if not self.options:
            return Content.styled("none yet", "$text-muted")
        width = sum(len(option) + 4 for option in self.options) - 2
        if width > self.size.width:
            place = f" › {self._index() + 1}/{len(self.options)}"
            return Content.assemble("‹ ", shortened(self.value, self.size.width - len(place) - 2), place)
        return Content("  ").join(self._option(number, option) for number, option in enumerate(self.options))

    def _option(self, number: int, option: str) -> Content:
        chosen = option == self.value
        shown = Content("● " if chosen else "○ ") + line(option)
        return shown.stylize("bold" if chosen else "$text-muted").stylize_before(Style.from_meta({"option": number}))

    def _index(self) -> int:
        return self.options.index(self.value) if self.value in self.options else 0
