"""The bin: what was deleted, to take back or to delete for good."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.worker import get_current_worker

from stages.store.bin import Thrown, destroy_all, list_bin, restore
from stages.store.errors import UserError
from stages.store.workspace import Workspace
from workbench.display import content, line, shortened
from workbench.keys import bind
from workbench.screens.base import Dialog
from workbench.screens.question import Question
from workbench.widgets.filter_field import FilterField
from workbench.widgets.picklist import PickList
from workbench.wording import amount

NAME_WIDTH = 39
"""Cells of a name at most."""
BESIDE = 51
"""Cells of the window that are not for names."""
EMPTY = "The bin is empty. What you delete comes here first."
EVERY = 0.5
"""Seconds between looks at what is still being deleted."""


class BinScreen(Dialog[None]):
    """Lists the bin, the newest first."""

    CSS_PATH = "bin.tcss"
    DOOMED: ClassVar[set[Path]] = set()
    """What this app is deleting: it goes on when the screen is left, and stands here when one comes back."""
    BINDINGS = [
        bind("bin.destroy", "d,delete", "destroy", "For good", "Delete it for good."),
        bind("bin.empty", "E", "empty", "Empty", "Delete all that is in the bin for good."),
    ]

    def __init__(self, workspace: Workspace) -> None:
        super().__init__()
        self._workspace = workspace
        self._thrown: dict[str, Thrown] = {}
        self._sizes: dict[str, int] = {}
        self._said_doomed = 0

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = "bin"
            yield PickList()
            yield Static(EMPTY, classes="muted", id="empty")
            box.border_subtitle = "enter takes back · d deletes for good · E empties · esc closes"

    def on_mount(self) -> None:
        self._look()
        self.set_interval(EVERY, self._follow)

    def _follow(self) -> None:
        """Look again when something has been deleted."""
        if len(self.DOOMED) != self._said_doomed:
            self._look()

    @on(OptionList.OptionSelected)
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        thrown = self._thrown.get(event.option_id or "")
        if thrown is None:
            return
        title = thrown.title  # a run's name is read where it lies
        try:
            restore(self._workspace, thrown)
        except UserError as error:
            self.notify(str(error), severity="error")
        else:
            self.notify(f"{title} is back among the {thrown.kind}.")
        self._look()

    def action_destroy(self) -> None:
        """Delete what the cursor is on for good, after a question."""
        thrown = self._thrown.get(self.query_one(PickList).chosen or "")
        if thrown is None:
            return
        question = Question(f"Delete {thrown.title} for good?", "It cannot be taken back.", yes="delete it")

        def answered(yes: bool | None) -> None:
            if yes:
                self._destroy([thrown])

        self.app.push_screen(question, answered)

    def action_empty(self) -> None:
        """Delete everything for good, after a question that says how much it is."""
        chosen = list(self._thrown.values())
        if not chosen:
            return
        things = f"{len(chosen):,} thing{'s' if len(chosen) > 1 else ''}"
        question = Question(
            f"Empty the bin: delete {things} for good?",
            f"{amount(sum(self._sizes[key] for key in self._thrown), 'bytes')} get free. It cannot be taken back.",
            yes="empty it",
        )

        def answered(yes: bool | None) -> None:
            if yes:
                self._destroy(chosen)

        self.app.push_screen(question, answered)

    def _destroy(self, chosen: Sequence[Thrown]) -> None:
        """Take them off the list at once: nothing can be done with them any more. Deleting takes its time."""
        self.DOOMED.update(thrown.path for thrown in chosen)
        self._show(list(self._thrown.values()), list(self._sizes.values()))
        self._delete(chosen)

    @work(thread=True, group="act")
    def _delete(self, chosen: Sequence[Thrown]) -> None:
        app = self.app
        try:
            failed = destroy_all(chosen)
        finally:
            self.DOOMED.difference_update(thrown.path for thrown in chosen)
        for error in failed:
            app.call_from_thread(app.notify, str(error), severity="error", timeout=10)
        app.call_from_thread(self._look)

    @work(thread=True, exclusive=True, group="look")
    def _look(self) -> None:
        thrown = list_bin(self._workspace)
        sizes = [one.bytes() for one in thrown]
        if not get_current_worker().is_cancelled:
            self.app.call_from_thread(self._show, thrown, sizes)

    def _show(self, thrown: list[Thrown], sizes: list[int]) -> None:
        if not self.query(PickList):
            return  # the thread that looked was slower than the one who left
        there = {_key(one): (one, size) for one, size in zip(thrown, sizes, strict=True) if one.path not in self.DOOMED}
        self._said_doomed = doomed = len(self.DOOMED)
        still = f"Emptying … {doomed:,} thing{'s are' if doomed > 1 else ' is'} still being deleted."
        self._thrown = {key: one for key, (one, _) in there.items()}
        self._sizes = {key: size for key, (_, size) in there.items()}
        found = self.query_one(PickList)
        room = min(NAME_WIDTH, max(10, self.app.size.width - BESIDE))
        found.show([(key, _row(one, size, room)) for key, (one, size) in there.items()])
        found.display = bool(there)
        told = self.query_one("#empty", Static)
        told.update(still if doomed else EMPTY)
        told.display = not there or bool(doomed)
        if there and not self.query(FilterField):
            found.focus()


def _key(thrown: Thrown) -> str:
    """What tells things in the bin apart, whatever else comes and goes there."""
    return f"{thrown.kind}/{thrown.path.name}"


def _row(thrown: Thrown, size: int, room: int) -> Content:
    name = shortened(thrown.title, room)
    when = thrown.deleted.astimezone().strftime("%d %b %H:%M")
    note = f"{thrown.kind.removesuffix('s'):<10}  {amount(size, 'bytes'):>9}  {when}"
    return Content.assemble(line(name), " " * max(2, room + 2 - len(name)), content(note, "$text-muted"))
