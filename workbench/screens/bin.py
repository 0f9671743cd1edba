"""The bin: what was deleted, to take back or to delete for good."""

from __future__ import annotations

from collections.abc import Sequence

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import OptionList, Static

from stages.store.bin import Thrown, destroy, list_bin, restore
from stages.store.errors import UserError
from stages.store.workspace import Workspace
from workbench.display import content, line, shortened
from workbench.keys import bind
from workbench.screens.base import Dialog
from workbench.screens.question import Question
from workbench.widgets.filter_field import FilterField
from workbench.widgets.picklist import PickList
from workbench.wording import amount

NAME_WIDTH = 40
"""Cells of a name at most."""
BESIDE = 50
"""Cells of the window that are not for names."""


class BinScreen(Dialog[None]):
    """Lists the bin, the newest first."""

    CSS_PATH = "bin.tcss"
    BINDINGS = [
        bind("bin.destroy", "d,delete", "destroy", "For good", "Delete it for good."),
        bind("bin.empty", "E", "empty", "Empty", "Delete all that is in the bin for good."),
    ]

    def __init__(self, workspace: Workspace) -> None:
        super().__init__()
        self._workspace = workspace
        self._thrown: list[Thrown] = []
        self._sizes: list[int] = []

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = "bin"
            yield PickList()
            yield Static("The bin is empty. What you delete comes here first.", classes="muted", id="empty")
            box.border_subtitle = "enter takes back · d deletes for good · E empties · esc closes"

    def on_mount(self) -> None:
        self._look()

    @on(OptionList.OptionSelected)
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        thrown = self._thrown[int(event.option_id or 0)]
        try:
            restore(self._workspace, thrown)
        except UserError as error:
            self.notify(str(error), severity="error")
        else:
            self.notify(f"{thrown.title} is back among the {thrown.kind}.")
        self._look()

    def action_destroy(self) -> None:
        """Delete what the cursor is on for good, after a question."""
        chosen = self.query_one(PickList).chosen
        if chosen is None:
            return
        thrown = self._thrown[int(chosen)]
        question = Question(f"Delete {thrown.title} for good?", "It cannot be taken back.", yes="delete it")

        def answered(yes: bool | None) -> None:
            if yes:
                self._destroy([thrown])

        self.app.push_screen(question, answered)

    def action_empty(self) -> None:
        """Delete everything for good, after a question that says how much it is."""
        if not self._thrown:
            return
        things = f"{len(self._thrown):,} thing{'s' if len(self._thrown) > 1 else ''}"
        question = Question(
            f"Empty the bin: delete {things} for good?",
            f"{amount(sum(self._sizes), 'bytes')} get free. It cannot be taken back.",
            yes="empty it",
        )

        def answered(yes: bool | None) -> None:
            if yes:
                self._destroy(self._thrown)

        self.app.push_screen(question, answered)

    @work(thread=True, group="act")
    def _destroy(self, chosen: Sequence[Thrown]) -> None:
        try:
            for thrown in chosen:
                destroy(thrown)
        except UserError as error:
            self.app.call_from_thread(self.notify, str(error), severity="error")
        self.app.call_from_thread(self._look)

    @work(thread=True, exclusive=True, group="look")
    def _look(self) -> None:
        thrown = list_bin(self._workspace)
        self.app.call_from_thread(self._show, thrown, [one.bytes() for one in thrown])

    def _show(self, thrown: list[Thrown], sizes: list[int]) -> None:
        if not self.query(PickList):
            return  # the thread that looked was slower than the one who left
        self._thrown, self._sizes = thrown, sizes
        found = self.query_one(PickList)
        room = min(NAME_WIDTH, max(10, self.app.size.width - BESIDE))
        found.show([(str(at), _row(one, size, room)) for at, (one, size) in enumerate(zip(thrown, sizes, strict=True))])
        found.display = bool(thrown)
        self.query_one("#empty", Static).display = not thrown
        if thrown and not self.query(FilterField):
            found.focus()


def _row(thrown: Thrown, size: int, room: int) -> Content:
    name = shortened(thrown.title, room)
    when = thrown.deleted.astimezone().strftime("%d %b %H:%M")
    note = f"{thrown.kind.removesuffix('s'):<9}  {amount(size, 'bytes'):>9}  {when}"
    return Content.assemble(line(name), " " * max(2, room + 2 - len(name)), content(note, "$text-muted"))
