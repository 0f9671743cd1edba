"""The form of one record, for each kind its own fields: what is confirmed is handed back, and saved by who asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from stages.store.datasets import Kind
from stages.store.errors import UserError
from stages.store.handmade import check, record_from
from stages.store.records import (
    ChatRecord,
    LabelledRecord,
    Message,
    PreferenceRecord,
    PromptRecord,
    Record,
    TextRecord,
)
from workbench.display import content
from workbench.keys import bind
from workbench.records.text import ROLES, TASKS
from workbench.screens.base import PlaceScreen
from workbench.widgets.fields import Choice
from workbench.widgets.record_fields import Block, Blocks, LabelledLine

EMPTY: dict[Kind, Record] = {
    "text": TextRecord(text=""),
    "chat": ChatRecord(messages=[Message("user", ""), Message("assistant", "")]),
    "preference": PreferenceRecord(messages=[Message("user", "")], completions=["", ""], ranks=[1, 2]),
    "prompts": PromptRecord(messages=[Message("user", "")]),
    "labelled": LabelledRecord(task="classify", texts=[""]),
}
"""What the form of a new record begins with."""

ADDS: dict[Kind, str] = {"chat": "turn", "preference": "completion", "prompts": "turn", "labelled": "text"}
"""What `add` adds to a record of a kind, where the focus does not say otherwise."""


class RecordForm(PlaceScreen):
    """Edits `record`, or a new one of `kind`. What is confirmed and makes sense is `confirmed` when it closes."""

    PLACE = "data"
    CSS_PATH = "record_form.tcss"
    AUTO_FOCUS = "TextField"
    BINDINGS = [
        bind("record_form.save", "ctrl+r", "save", "Save", "Save the record."),
        bind("record_form.add", "ctrl+t", "add", "Add part", "Add a turn, a completion or a text."),
        bind("record_form.remove", "ctrl+l", "remove", "Remove part", "Remove the part one is in."),
        bind("record_form.back", "escape", "back", "Back", "Leave the form; nothing is changed."),
    ]

    def __init__(self, dataset: str, kind: Kind, record: Record | None = None) -> None:
        super().__init__()
        self._dataset, self._kind, self._new = dataset, kind, record is None
        self._record = record or EMPTY[kind]
        self.confirmed: Record | None = None

    def compose_body(self) -> ComposeResult:
        yield Static(Content(f"{'New record' if self._new else 'Edit the record'} · {self._kind}"), classes="heading")
        with Blocks():
            yield from self._fields()
        yield Static(id="trouble", classes="error")

    def on_mount(self) -> None:
        self.show_trail(self._dataset)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return self._kind in ADDS if action in ("add", "remove") else True

    def _fields(self) -> Iterator[Widget]:
        record = self._record
        if isinstance(record, TextRecord):
            yield Block("text", "", record.text)
        if isinstance(record, LabelledRecord):
            with Horizontal(classes="line"):
                yield Static(Content("task "), classes="block-name")
                yield Choice(TASKS, record.task)
            yield from (Block("text", "", text) for text in record.texts)
            yield LabelledLine("label", record.label or "", "of a choice: the number of the right option, from 0")
            yield LabelledLine("labels", " ".join(record.labels or []), "of tokens: one for each text, between spaces")
        if isinstance(record, ChatRecord | PreferenceRecord | PromptRecord):
            yield from (_turn(message) for message in record.messages)
        if isinstance(record, PreferenceRecord):
            for text, rank in zip(record.completions, record.ranks, strict=False):
                yield Block("completion", str(rank), text)
            yield LabelledLine("annotator", record.annotator)
        if isinstance(record, PromptRecord):
            yield Block("answer", "", record.answer or "")
        yield LabelledLine("source", record.source)

    def read(self) -> Record:
        """The record as it stands in the form. UserError for one that makes no sense."""
        before, blocks = self._record, self.query_one(Blocks)
        values: dict[str, Any] = msgspec.to_builtins(before)
        values["source"] = self._line("source")
        if isinstance(before, TextRecord):
            values["text"] = blocks.blocks("text")[0].text
        if isinstance(before, ChatRecord | PreferenceRecord | PromptRecord):
            values["messages"] = [msgspec.to_builtins(message) for message in self._messages(before.messages)]
        if isinstance(before, PreferenceRecord):
            completions = blocks.blocks("completion")
            values["completions"] = [block.text for block in completions]
            values["ranks"] = [_rank(block) for block in completions]
            values["annotator"] = self._line("annotator")
            if before.scores is not None and values["completions"] != before.completions:
                values["scores"] = None  # they were those of other texts
        if isinstance(before, PromptRecord):
            values["answer"] = blocks.blocks("answer")[0].text or None
        if isinstance(before, LabelledRecord):
            values["task"] = blocks.query(Choice).first().value
            values["texts"] = [block.text for block in blocks.blocks("text")]
            tokens = values["task"] == "tokens"
            values["label"] = None if tokens else self._line("label").strip() or None
            values["labels"] = self._line("labels").split() if tokens else None
        record = record_from(values, self._kind)
        assert record is not None
        check(record)
        return record

    def action_save(self) -> None:
        """Hand the record back, or say what is wrong with it."""
        try:
            self.confirmed = self.read()
        except UserError as error:
            self.query_one("#trouble", Static).update(content(str(error)))
        else:
            self.dismiss()

    def action_back(self) -> None:
        self.dismiss()

    async def action_add(self) -> None:
        """Add a part like the one one is in, after it."""
        blocks = self.query_one(Blocks)
        current = blocks.current()
        part = current.part if current is not None and current.part != "answer" else ADDS[self._kind]
        same = blocks.blocks(part)
        after = current if current is not None and current.part == part else (same[-1] if same else None)
        if part == "turn":
            added = _turn(Message("assistant" if after is not None and after.head == "user" else "user", ""))
        else:
            added = Block(part, str(len(same) + 1) if part == "completion" else "", "")
        await blocks.mount(added, **({"after": after} if after is not None else {"before": 0}))
        added.query_one("TextField").focus()

    async def action_remove(self) -> None:
        """Remove the part one is in, but not the last of its sort."""
        blocks = self.query_one(Blocks)
        current = blocks.current()
        if current is None or len(blocks.blocks(current.part)) < 2:
            self.query_one("#trouble", Static).update(content("The last one stays: a record needs it."))
            return
        await current.remove()
        self.query_one("TextField").focus()

    def _messages(self, before: list[Message]) -> Iterator[Message]:
        learnt = {(message.role, message.content): message.train for message in before}
        turns = self.query_one(Blocks).blocks("turn")
        for at, block in enumerate(turns):
            role = ROLES[ROLES.index(block.head)]
            same_place = before[at].train if len(turns) == len(before) and before[at].role == role else None
            yield Message(role, block.text, learnt.get((role, block.text), same_place))

    def _line(self, name: str) -> str:
        return self.query_one(f"#line-{name}", LabelledLine).value


def _turn(message: Message) -> Block:
    return Block("turn", message.role, message.content, ROLES)


def _rank(block: Block) -> int:
    if not block.head.isdecimal():
        raise UserError(f"{block.head or 'Nothing'} is no rank.", "Ranks count from 1, the best; ties are equal.")
    return int(block.head)
