"""Flagging a candidate by the three criteria."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from stages.store.labels.records import FLAGS
from workbench.keys import bind
from workbench.screens.base import Dialog


class Flagging(Dialog[str]):
    """Digits choose criteria, enter flags. Dismissed with them, separated by commas; empty or None: nothing."""

    CSS_PATH = "question.tcss"
    AUTO_FOCUS = ""
    BINDINGS = [
        bind("flagging.1", "1", "choose(0)", "Not helpful", "It does not do what was asked."),
        bind("flagging.2", "2", "choose(1)", "Not honest", "It says what is false as if it were true."),
        bind("flagging.3", "3", "choose(2)", "Harmful", "It could hurt somebody."),
        bind("flagging.flag", "enter", "flag", "Flag", "Save the flag."),
    ]

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number
        self._chosen: set[int] = set()

    def compose(self) -> ComposeResult:
        with Vertical(classes="question"):
            yield Static(Content(f"Flag candidate {self._number + 1}"), classes="heading")
            yield Static(id="criteria")
            yield Static(Content("1 2 3 choose     enter flags     esc leaves it"), classes="muted")

    def on_mount(self) -> None:
        self._show()

    def action_choose(self, number: int) -> None:
        self._chosen ^= {number}
        self._show()

    def action_flag(self) -> None:
        if not self._chosen:
            self.query_one(".muted", Static).update(Content("Choose one first: 1 2 3     esc leaves it"))
            return
        self.dismiss(", ".join(name for number, name in enumerate(FLAGS) if number in self._chosen))

    def _show(self) -> None:
        lines = [
            Content.assemble(
                f"{'●' if number in self._chosen else '○'} {number + 1} ",
                (name, "bold"),
                "\n    ",
                (said, "$text-muted"),
            )
            for number, (name, said) in enumerate(FLAGS.items())
        ]
        self.query_one("#criteria", Static).update(Content("\n").join(lines))
