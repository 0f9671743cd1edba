"""Changing the records of a small set: a change is on disk before the screen says so, and can be undone."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import msgspec
from textual import work
from textual.binding import Binding

from stages.store.datasets import DatasetInfo, find_dataset
from stages.store.errors import UserError
from stages.store.handmade import EDITABLE, Edit, record_from, why_not_editable
from stages.store.names import check_name
from stages.store.records import Record
from workbench.keys import bind
from workbench.records.text import from_text, to_text
from workbench.screens.base import PlaceScreen
from workbench.screens.question import Ask, Question
from workbench.screens.record_form import RecordForm
from workbench.widgets.record_list import RecordList


class RecordEditing(PlaceScreen):
    """What a screen of records needs to change them. The digest that each change is based on guards against others'."""

    KEYS: ClassVar[list[Binding]] = [
        bind("records.add", "a,plus", "add", "Add", "Add a record at the end."),
        bind("records.edit", "i", "edit", "Edit", "Edit the record in a form."),
        bind("records.editor", "e", "editor", "$EDITOR", "Edit the record as text in $EDITOR.", show=False),
        bind("records.delete", "d,delete", "delete", "Delete", "Delete the record.", show=False),
        bind("records.undo", "u", "undo", "Undo", "Take the last change back."),
        bind("records.redo", "r", "redo", "Redo", "Make the change again that was taken back.", show=False),
        bind("records.copy", "c", "copy", "Copy", "Copy the dataset under a new name.", show=False),
    ]
    dataset: str
    split: str
    filter: str
    info: DatasetInfo | None

    def __init__(self) -> None:
        super().__init__()
        self._done: list[tuple[str, Edit]] = []
        self._undone: list[tuple[str, Edit]] = []
        self._saving = asyncio.Lock()

    @property
    def listing(self) -> RecordList:
        raise NotImplementedError

    def load(self, cursor: int = 0, total: int | None = None) -> None:
        """Show the records anew, all of them unless `total` says how many the filter leaves."""
        raise NotImplementedError

    def ask(self, **more: Any) -> dict[str, Any]:
        """What every question to the desk names."""
        raise NotImplementedError

    def note(self, text: str, style: str = "") -> None:
        """Say something in the line below the records."""
        raise NotImplementedError

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Large sets are not offered what cannot be done to them."""
        if action not in ("add", "edit", "editor", "delete", "undo", "redo"):
            return True
        if action in ("undo", "redo"):
            return bool(self._done if action == "undo" else self._undone) or None
        return self.info is not None and sum(self.info.records.values()) <= EDITABLE

    @work(group="edit")
    async def action_add(self) -> None:
        """A form for a new record; saved at the end of the split."""
        if self.info is not None and await self._may_change():
            self._open_form(None, self.info.records.get(self.split, 0))

    @work(group="edit")
    async def action_edit(self) -> None:
        """The record under the cursor in a form."""
        found = await self._under_the_cursor()
        if found is not None:
            self._open_form(found[1], found[0])

    @work(group="edit")
    async def action_editor(self) -> None:
        """The record under the cursor as text in $EDITOR."""
        from workbench.editor import edit_text

        found = await self._under_the_cursor()
        if found is None:
            return
        at, record = found
        text, trouble = edit_text(self.app, to_text(record))
        if trouble:
            self.workbench.show_error(UserError(trouble))
            return
        try:
            changed = from_text(text, record)
        except UserError as error:
            self.workbench.show_error(error)
            return
        self._replace(at, record, changed)

    @work(group="edit")
    async def action_delete(self) -> None:
        """Delete the record under the cursor; undo brings it back."""
        found = await self._under_the_cursor()
        if found is not None:
            await self._change(Edit(found[0], found[1], None), "Deleted")

    @work(group="edit")
    async def action_undo(self) -> None:
        if self._done:
            split, edit = self._done.pop()
            self.split = split
            if await self._change(edit.undone(), "Undone", remember=False):
                self._undone.append((split, edit))
            else:
                self._done.append((split, edit))
            self.refresh_bindings()

    @work(group="edit")
    async def action_redo(self) -> None:
        if self._undone:
            split, edit = self._undone.pop()
            self.split = split
            if await self._change(edit, "Done again", remember=False):
                self._done.append((split, edit))
            else:
                self._undone.append((split, edit))
            self.refresh_bindings()

    def action_copy(self) -> None:
        """Copy the dataset, and go on with the copy."""

        def check(name: str) -> None:
            check_name(name, "name of a dataset")
            if (self.workbench.workspace.datasets / name).exists():
                raise UserError(f"There is already a dataset {name!r}.", "Choose another name.")

        detail = "The copy has the same records, and nothing needs it yet."

        def answered(name: str | None) -> None:
            if name is not None:
                self._copy(name)

        self.app.push_screen(Ask("Copy the dataset", detail, f"{self.dataset}-2", check), answered)

    @work(group="edit")
    async def _copy(self, name: str) -> None:
        self.note("Copying …")
        try:
            await self.workbench.desk.ask("records.copy", dataset=self.dataset, name=name)
        except UserError as error:
            self.workbench.show_error(error)
            return
        self.dataset, self._done, self._undone = name, [], []
        self.load(self.listing.cursor)
        self.note(f"This is the copy, {name}.")

    async def _may_change(self) -> bool:
        """Whether the set may be changed; if not it is said why, and a copy offered."""
        workspace = self.workbench.workspace
        try:
            reason = await asyncio.to_thread(lambda: why_not_editable(workspace, find_dataset(workspace, self.dataset)))
        except UserError as error:
            reason = error
        if reason is None:
            return True
        if "copy" not in reason.hint:
            self.workbench.show_error(reason)
        else:

            def answered(yes: bool | None) -> None:
                if yes:
                    self.action_copy()

            self.app.push_screen(Question(reason.title, reason.hint, yes="copy it"), answered)
        return False

    def _open_form(self, record: Record | None, at: int) -> None:
        """The form of a record, or of a new one; what is confirmed there is saved."""
        if self.info is None:
            return
        form = RecordForm(self.dataset, self.info.kind, record)

        def closed(_: object) -> None:
            if form.confirmed is not None:
                self._replace(at, record, form.confirmed)

        self.app.push_screen(form, closed)

    async def _under_the_cursor(self) -> tuple[int, Record] | None:
        """Number and record, where the set may be changed."""
        if self.info is None or not self.listing.total or not await self._may_change():
            return None
        try:
            answer = await self.workbench.desk.ask("records.read", **self.ask(start=self.listing.cursor, shown=0))
            entry = answer["records"][0]
            record = record_from(entry["record"], self.info.kind)
        except UserError as error:
            self.workbench.show_error(error)
            return None
        return (entry["number"], record) if record is not None else None

    @work(group="edit")
    async def _replace(self, at: int, before: Record | None, after: Record) -> None:
        if after == before:
            self.note("Nothing was changed.", "$text-muted")
        else:
            await self._change(Edit(at, before, after), "Added" if before is None else "Changed")

    async def _change(self, edit: Edit, done: str, *, remember: bool = True) -> bool:
        """Make one change; whether it is on disk. Then, and not before, the screen says so."""
        async with self._saving:
            assert self.info is not None
            self.note("Saving …", "$text-muted")
            values = {"before": msgspec.to_builtins(edit.before), "after": msgspec.to_builtins(edit.after)}
            guard: dict[str, Any] = {
                "dataset": self.dataset,
                "digest": self.info.digest,
                "split": self.split,
            }
            try:
                answer = await self.workbench.desk.ask("records.edit", **guard, at=edit.at, **values)
            except UserError as error:
                self.note("Not saved.", "$error")
                self.workbench.show_error(error)
                self.load(self.listing.cursor)
                return False
            if remember:
                self._done.append((self.split, edit))
                self._undone.clear()
            self.load(edit.at)
            count = sum(answer["records"].values())
            self.note(f"{done} and saved   records {count:,}   digest {answer['digest'][:12]}", "$success")
            self.refresh_bindings()
            return True
