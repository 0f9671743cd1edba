"""The fields of a record's form: turns, completions and texts that come and go, and lines beside them."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from workbench.widgets.fields import Choice, LineInput
from workbench.widgets.text_field import TextField


class Block(Vertical):
    """A text with a role to choose, or a short field (a rank), or only a name before it. It may be removed."""

    def __init__(self, part: str, head: str, text: str, roles: Sequence[str] = ()) -> None:
        """`part` says what it is (turn, completion, text, answer); `head` is the role, the rank, or empty."""
        super().__init__(classes=f"block {part}")
        self.part, self._head, self._text, self._roles = part, head, text, roles

    def compose(self) -> ComposeResult:
        with Horizontal(classes="block-head"):
            yield Static(Content(f"{self.part} "), classes="block-name")
            if self._roles:
                yield Choice(self._roles, self._head)
            elif self.part == "completion":
                yield LineInput(self._head, placeholder="rank: 1 is best")
        yield TextField(self._text)

    @property
    def head(self) -> str:
        """The role or the rank, as it stands."""
        if self._roles:
            return self.query_one(Choice).value
        return self.query_one(LineInput).value.strip() if self.part == "completion" else ""

    @property
    def text(self) -> str:
        return self.query_one(TextField).text


class LabelledLine(Horizontal):
    """A name and a field of one line."""

    def __init__(self, name: str, value: str, placeholder: str = "") -> None:
        super().__init__(classes="line", id=f"line-{name}")
        self._name, self._value, self._placeholder = name, value, placeholder

    def compose(self) -> ComposeResult:
        yield Static(Content(f"{self._name} "), classes="block-name")
        yield LineInput(self._value, placeholder=self._placeholder)

    @property
    def value(self) -> str:
        """What stands there; what was given, exactly, when it was not touched."""
        now = self.query_one(LineInput).value
        return self._value if now == LineInput(self._value).value else now


class Blocks(VerticalScroll, can_focus=False):
    """The blocks of a record, in order, and its lines."""

    def blocks(self, part: str) -> list[Block]:
        return [block for block in self.query(Block) if block.part == part]

    def current(self) -> Block | None:
        """The block that has the focus."""
        focused: Widget | None = self.screen.focused
        return next((node for node in focused.ancestors if isinstance(node, Block)), None) if focused else None
