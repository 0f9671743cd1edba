"""The records browser over a real desk: paging, search, filters, one record in full, and small sets changed by hand."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from textual.app import App
from textual.pilot import Pilot
from textual.widgets import Input

from stages.store.datasets import Kind, find_dataset
from stages.store.records import (
    ChatRecord,
    LabelledRecord,
    Message,
    PreferenceRecord,
    PromptRecord,
    Record,
    TextRecord,
)
from stages.store.rundir import Parent
from stages.store.workspace import Workspace
from tests.workbench.conftest import SIZES, add_run, screen_text, settled, wait_for
from workbench.app import WorkbenchApp
from workbench.display import displayable_line
from workbench.screens.data import DataScreen
from workbench.screens.question import Ask, Question
from workbench.screens.record import RecordScreen
from workbench.screens.record_form import RecordForm
from workbench.screens.records import RecordsScreen
from workbench.talking.desk_client import ask_once
from workbench.widgets.record_view import RecordView
from workbench.widgets.text_field import TextField

MakeApp = Callable[..., WorkbenchApp]
Snapshot = Callable[..., Awaitable[None]]

ASK = Message("user", "What is the sky?")
SAMPLES: dict[Kind, Record] = {
    "text": TextRecord(text="The sky is blue.\nAnd wide.", source="sky.txt", meta={"family": "sky"}),
    "chat": ChatRecord(messages=[Message("system", "Be brief."), ASK, Message("assistant", "Blue.", train=True)]),
    "preference": PreferenceRecord(messages=[ASK], completions=["No.", "Blue."], ranks=[2, 1], annotator="eva"),
    "prompts": PromptRecord(messages=[ASK], answer="blue"),
    "labelled": LabelledRecord(task="choice", texts=["The sky is", "blue", "square"], label="0"),
}


def make(workspace: Workspace, name: str, kind: Kind, records: Sequence[Record]) -> None:
    """A hand-made dataset of these records."""
    made = ask_once(workspace, "records.create", name=name, kind=kind)
    for at, record in enumerate(records):
        values = {"at": at, "before": None, "after": msgspec.to_builtins(record)}
        made = ask_once(workspace, "records.edit", dataset=name, digest=made["digest"], split="train", **values)


def write(workspace: Workspace, name: str, count: int, val: int = 3) -> None:
    """A dataset of numbered documents, written as a build would."""
    script = Path(__file__).with_name("write_records.py")
    subprocess.run(
        [sys.executable, str(script), str(workspace.datasets / name), str(count), str(val)],
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        check=True,
    )


async def browse(pilot: Pilot[Any], name: str) -> RecordsScreen:
    """The browser over a dataset, its first records shown."""
    screen = RecordsScreen(name)
    await pilot.app.push_screen(screen)
    await wait_for(pilot, lambda: not screen.listing.total or screen.listing.has_row(0))
    return screen


def noted(app: App[Any], text: str) -> Callable[[], bool]:
    return lambda: text in screen_text(app)


@pytest.mark.parametrize("size", SIZES)
async def test_snapshots(make_app: MakeApp, workspace: Workspace, snapshot: Snapshot, size: tuple[int, int]) -> None:
    chats = [
        SAMPLES["chat"],
        ChatRecord(messages=[Message("user", "Zwei?\nDrei?"), Message("assistant", "二三 \x1b[31m")], source="b.json"),
    ]
    make(workspace, "talks", "chat", [*chats, *chats])
    async with make_app().run_test(size=size) as pilot:
        await browse(pilot, "talks")
        await pilot.press("j")
        await snapshot(pilot, f"records-{size[0]}x{size[1]}")
        await pilot.press("k", "enter")
        await wait_for(pilot, noted(pilot.app, "learnt"))
        await snapshot(pilot, f"record-{size[0]}x{size[1]}")
        await pilot.press("escape", "i")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, RecordForm))
        await snapshot(pilot, f"record-form-{size[0]}x{size[1]}")
        await pilot.press("escape", "s")
        await wait_for(pilot, noted(pilot.app, "4 records"))
        await snapshot(pilot, f"record-statistics-{size[0]}x{size[1]}")


async def test_keys_move_through_many_records_and_tab_through_splits(make_app: MakeApp, workspace: Workspace) -> None:
    write(workspace, "many", 20_000)
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await browse(pilot, "many")
        listing = screen.listing
        for key, cursor in (("j", 1), ("down", 2), ("k", 1), ("end", 19_999), ("up", 19_998), ("home", 0)):
            await pilot.press(key)
            assert listing.cursor == cursor
            await wait_for(pilot, lambda: listing.has_row(listing.cursor))
        await pilot.press("pagedown")
        assert 10 < listing.cursor < 24
        await pilot.press("g")
        await wait_for(pilot, lambda: isinstance(app.screen, Ask))
        await pilot.press(*"20,001", "enter")
        await wait_for(pilot, noted(app, "A number from 1 to 20,000."))
        await pilot.press("ctrl+u", *"12345", "enter")
        await wait_for(pilot, noted(app, "number 12344"))
        assert listing.cursor == 12_344
        row = next(row for row in screen_text(app).splitlines() if " val " in row)
        await pilot.click(offset=(row.index(" val ") + 2, screen_text(app).splitlines().index(row)))
        await wait_for(pilot, noted(app, "1 of 3"))
        await wait_for(pilot, noted(app, "number 2"))
        assert not listing.has_row(3)


async def test_search_goes_from_hit_to_hit(make_app: MakeApp, workspace: Workspace) -> None:
    write(workspace, "many", 5_000)
    app = make_app()
    async with app.run_test(size=(100, 30)) as pilot:
        listing = (await browse(pilot, "many")).listing
        await pilot.press("f", *"NUMBER 49", "enter")
        await wait_for(pilot, lambda: listing.cursor == 49)
        await pilot.press("n")
        await wait_for(pilot, lambda: listing.cursor == 490)
        await pilot.press("N")
        await wait_for(pilot, lambda: listing.cursor == 49)
        await pilot.press("N")
        await wait_for(pilot, lambda: listing.cursor == 4_999)
        await wait_for(pilot, noted(app, "Went around the end."))
        await pilot.press("f", "ctrl+u", *"nowhere", "enter")
        await wait_for(pilot, noted(app, "No record has 'nowhere'."))


async def test_a_filter_shows_some_and_escape_shows_all(make_app: MakeApp, workspace: Workspace) -> None:
    write(workspace, "many", 5_000)
    app = make_app()
    async with app.run_test(size=(100, 30)) as pilot:
        screen = await browse(pilot, "many")
        await pilot.press("slash", *"source:part-7 length>10", "enter")
        await wait_for(pilot, lambda: screen.filter)
        assert screen.listing.total == sum(1 for n in range(5_000) if n % 10 == 7 and len(f"number {n}") > 10)
        await pilot.press("j", "enter")
        await wait_for(pilot, noted(app, "number 1017"))
        await pilot.press("escape", "escape")
        await wait_for(pilot, lambda: screen.listing.total == 5_000)
        await pilot.press("slash", "ctrl+u", *"nonsense:1", "enter")
        await wait_for(pilot, lambda: any("cannot be filtered by" in note.title for note in app._notifications))


async def test_a_search_is_stopped_by_escape(
    make_app: MakeApp, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(workspace, "many", 100)
    app = make_app()
    async with app.run_test() as pilot:
        screen = await browse(pilot, "many")
        cancelled = asyncio.Event()

        async def slow(verb: str, **args: Any) -> Any:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        monkeypatch.setattr(app.desk, "ask", slow)
        await pilot.press("f", *"x", "enter")
        await wait_for(pilot, lambda: screen._at_work is not None and screen._at_work.is_running)
        await pilot.press("escape")
        await wait_for(pilot, cancelled.is_set)
        await wait_for(pilot, noted(app, "Stopped."))
        assert app.screen is screen


@pytest.mark.parametrize("kind", SAMPLES)
async def test_a_record_of_every_kind_in_full(make_app: MakeApp, workspace: Workspace, kind: Kind) -> None:
    make(workspace, "mine", kind, [SAMPLES[kind]])
    app = make_app()
    async with app.run_test(size=(100, 30)) as pilot:
        await browse(pilot, "mine")
        await pilot.press("enter")
        await wait_for(pilot, lambda: isinstance(app.screen, RecordScreen) and app.screen.record)
        shown = app.screen.query_one(RecordView).plain
        expected = {
            "text": ["The sky is blue.\nAnd wide.", "source  sky.txt", "family  sky"],
            "chat": ["system\nBe brief.", "user\nWhat is the sky?", "assistant  learnt\nBlue."],
            "preference": ["rank 1  completion 2\nBlue.", "rank 2  completion 1\nNo.", "annotator  eva"],
            "prompts": ["user\nWhat is the sky?", "answer\nblue"],
            "labelled": ["choice  0", "question\nThe sky is", "option 0  right\nblue", "option 1\nsquare"],
        }[kind]
        at = [shown.find(text) for text in expected]
        assert -1 not in at and at == sorted(at), shown


async def test_next_and_previous_records_and_the_place_in_the_list(make_app: MakeApp, workspace: Workspace) -> None:
    write(workspace, "many", 300)
    app = make_app()
    async with app.run_test() as pilot:
        screen = await browse(pilot, "many")
        await pilot.press("enter", "n", "n", "p", "n")
        await wait_for(pilot, noted(app, "number 2"))
        await pilot.press("escape")
        await wait_for(pilot, lambda: app.screen is screen)
        assert screen.listing.cursor == 2


async def test_a_new_set_is_made_filled_changed_and_undone(make_app: MakeApp, workspace: Workspace) -> None:
    app = make_app()
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.press("D")
        await wait_for(pilot, lambda: isinstance(app.screen, DataScreen))
        await settled(pilot)
        await pilot.press("N", "enter")
        await wait_for(pilot, lambda: isinstance(app.screen, Ask))
        await pilot.press(*"mine", "enter")
        await wait_for(pilot, lambda: isinstance(app.screen, RecordsScreen))
        empty = find_dataset(workspace, "mine").info
        assert (empty.kind, empty.records) == ("text", {"train": 0, "val": 0})
        for text in ("one", "two"):
            await pilot.press("a")
            await wait_for(pilot, lambda: isinstance(app.screen, RecordForm))
            await settled(pilot)
            await pilot.press(*text, "ctrl+r")
            await wait_for(pilot, lambda: isinstance(app.screen, RecordsScreen))
            await wait_for(pilot, noted(app, "Added and saved"))
            await settled(pilot)
        both = find_dataset(workspace, "mine").info
        assert both.records["train"] == 2
        await pilot.press("d")
        await wait_for(pilot, noted(app, "Deleted and saved"))
        assert find_dataset(workspace, "mine").info.records["train"] == 1
        await pilot.press("u")
        await wait_for(pilot, noted(app, "Undone and saved"))
        assert find_dataset(workspace, "mine").info.digest == both.digest
        await pilot.press("u", "u")
        await wait_for(pilot, lambda: find_dataset(workspace, "mine").info.digest == empty.digest)
        await wait_for(pilot, noted(app, "of 0"))
        await pilot.press("r")
        await wait_for(pilot, noted(app, "Done again and saved"))
        assert find_dataset(workspace, "mine").info.records["train"] == 1


async def change_in_form(pilot: Pilot[Any], change: Callable[[RecordForm], Awaitable[object]]) -> None:
    """Open the form of the record under the cursor, change it, save."""
    await pilot.press("i")
    form = await wait_for(pilot, lambda: pilot.app.screen if isinstance(pilot.app.screen, RecordForm) else None)
    await settled(pilot)
    await change(form)
    await pilot.press("ctrl+r")


def record_now(workspace: Workspace, name: str = "mine") -> Any:
    found = ask_once(workspace, "records.read", dataset=name, split="train", start=0)["records"]
    return found[0]["record"] if found else None


async def test_turns_are_added_and_removed(make_app: MakeApp, workspace: Workspace) -> None:
    make(workspace, "mine", "chat", [SAMPLES["chat"]])

    async def change(form: RecordForm) -> None:
        await pilot.press("ctrl+l")  # the system's turn, where the form begins
        form.query(TextField).last().focus()
        await pilot.press("ctrl+t")
        await settled(pilot)
        await pilot.press(*"Why")
        await pilot.press("ctrl+t")
        await settled(pilot)
        await pilot.press(*"Air")

    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await browse(pilot, "mine")
        await change_in_form(pilot, change)
        await wait_for(pilot, noted(app, "Changed and saved"))
    turns = [(m["role"], m["content"], m.get("train")) for m in record_now(workspace)["messages"]]
    assert [turn[:2] for turn in turns[:2]] == [("user", "What is the sky?"), ("assistant", "Blue.")]
    assert turns[1][2] is True
    assert [turn[1] for turn in turns[2:]] == ["Why", "Air"]


async def test_ranks_are_given_by_digits_and_a_wrong_one_is_said(make_app: MakeApp, workspace: Workspace) -> None:
    make(workspace, "mine", "preference", [SAMPLES["preference"]])

    async def change(form: RecordForm) -> None:
        rank = form.query(".completion Input").first(Input)
        rank.focus()
        await pilot.press("backspace", "x", "ctrl+r")
        await wait_for(pilot, noted(app, "x is no rank."))
        await pilot.press("backspace", "1")

    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await browse(pilot, "mine")
        await change_in_form(pilot, change)
        await wait_for(pilot, noted(app, "Changed and saved"))
    assert record_now(workspace)["ranks"] == [1, 1]


@pytest.mark.parametrize("kind", SAMPLES)
async def test_a_form_that_is_saved_untouched_changes_nothing(
    make_app: MakeApp, workspace: Workspace, kind: Kind
) -> None:
    record = msgspec.structs.replace(SAMPLES[kind], source="tab\there \x1b", meta={"a": [1, None]})
    make(workspace, "mine", kind, [record])
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await browse(pilot, "mine")

        async def leave(form: RecordForm) -> None:
            assert form.read() == record

        await change_in_form(pilot, leave)
        await wait_for(pilot, noted(app, "Nothing was changed."))


async def test_a_set_that_a_run_needs_offers_a_copy(make_app: MakeApp, workspace: Workspace) -> None:
    make(workspace, "mine", "text", [SAMPLES["text"]])
    digest = find_dataset(workspace, "mine").info.digest
    add_run(workspace, "pretrain", "trained", parents={"dataset": Parent("mine", digest)})
    app = make_app()
    async with app.run_test(size=(100, 30)) as pilot:
        screen = await browse(pilot, "mine")
        await pilot.press("d")
        await wait_for(pilot, lambda: isinstance(app.screen, Question))
        assert "was used by run 'trained'" in screen_text(app)
        await pilot.press("y")
        await wait_for(pilot, lambda: isinstance(app.screen, Ask))
        await pilot.press("enter")
        await wait_for(pilot, noted(app, "This is the copy, mine-2."))
        await pilot.press("d")
        await wait_for(pilot, noted(app, "Deleted and saved"))
        assert screen.dataset == "mine-2"
    assert find_dataset(workspace, "mine").info.digest == digest
    assert find_dataset(workspace, "mine-2").info.records["train"] == 0


async def test_the_record_in_the_persons_own_editor(
    make_app: MakeApp, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(workspace, "mine", "chat", [SAMPLES["chat"]])
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i s/Blue/Grey/ "$1"\n')
    editor.chmod(editor.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("VISUAL", str(editor))
    app = make_app()
    monkeypatch.setattr(app, "suspend", lambda: __import__("contextlib").nullcontext())
    async with app.run_test() as pilot:
        await browse(pilot, "mine")
        await pilot.press("e")
        await wait_for(pilot, noted(app, "Changed and saved"))
    assert [m["content"] for m in record_now(workspace)["messages"]] == ["Be brief.", "What is the sky?", "Grey."]


async def test_what_the_head_says_is_displayable(make_app: MakeApp, workspace: Workspace) -> None:
    make(workspace, "mine", "text", [TextRecord(text="\x1b[31mred \u202e x")])
    app = make_app()
    async with app.run_test() as pilot:
        await browse(pilot, "mine")
        assert displayable_line("\x1b[31mred \u202e x") in screen_text(app)


async def test_data_opens_the_records_with_enter(make_app: MakeApp, workspace: Workspace) -> None:
    write(workspace, "many", 50)
    app = make_app()
    async with app.run_test() as pilot:
        await pilot.press("D")
        await settled(pilot)
        await pilot.press("enter")
        await wait_for(pilot, lambda: isinstance(app.screen, RecordsScreen))
        await wait_for(pilot, noted(app, "number 5"))
        await pilot.press("escape")
        await wait_for(pilot, lambda: isinstance(app.screen, DataScreen))
