"""Small questions over the screen: yes or no, and one line of text."""

from __future__ import annotations

from collections.abc import Callable

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.events import Click
from textual.style import Style
from textual.widgets import Input, Static

from stages.store.errors import UserError
from workbench.display import content
from workbench.keys import bind
from workbench.screens.base import Dialog
from workbench.widgets.fields import LineInput


class Question(Dialog[bool]):
    """Asks `title` and says what a yes would do. Dismissed with True for yes; no and escape change nothing."""

    CSS_PATH = "question.tcss"
    AUTO_FOCUS = ""
    BINDINGS = [
        bind("question.yes", "y,enter", "answer(True)", "Yes", "Do it."),
        bind("question.no", "n,q", "answer(False)", "No", "Leave all as it is."),
    ]

    def __init__(self, title: str, detail: str = "", *, yes: str = "yes") -> None:
        super().__init__()
        self._title, self._detail, self._yes = title, detail, yes

    def compose(self) -> ComposeResult:
        with Vertical(classes="question"):
            yield Static(content(self._title), classes="heading")
            if self._detail:
                yield Static(content(self._detail))
            yes = _answer("y enter", self._yes, yes=True)
            no = _answer("n esc", "no", yes=False)
            yield Static(Content.assemble(yes, "     ", no))

    def on_click(self, event: Click) -> None:
        """Take a click on one of the answers."""
        answer = event.style.meta.get("answer")
        if isinstance(answer, bool):
            self.dismiss(answer)

    def action_answer(self, yes: bool) -> None:
        self.dismiss(yes)


def _answer(keys: str, told: str, *, yes: bool) -> Content:
    """An answer with its keys, which takes clicks as well."""
    shown = Content.assemble((keys, "bold $accent"), "  ", content(told))
    return shown.stylize_before(Style.from_meta({"answer": yes}))


class Ask(Dialog[str]):
    """Asks for one line. `check` raises UserError for a text that will not do; its sentence is shown below.

    does: what enter does with the line.
    """

    CSS_PATH = "question.tcss"
    AUTO_FOCUS = "Input"

    def __init__(
        self, title: str, detail: str, value: str, check: Callable[[str], object], *, does: str = "sets it"
    ) -> None:
        super().__init__()
        self._title, self._detail, self._value, self._check = title, detail, value, check
        self._does = does

    def compose(self) -> ComposeResult:
        with Vertical(classes="question"):
            yield Static(content(self._title), classes="heading")
            yield Static(content(self._detail))
            yield LineInput(self._value)
            yield Static(content(f"enter {self._does}     esc leaves it"), id="answer", classes="muted")

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        try:
            self._check(event.value)
        except UserError as error:
            answer = self.query_one("#answer", Static)
            answer.update(content(str(error)))
            answer.set_class(True, "error")
            return
        self.dismiss(event.value)
