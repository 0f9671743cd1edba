"""Answers from a source: passages go before the question, sources are shown, and files may change meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from stages.store.errors import UserError
from stages.store.rundir import RunDir
from stages.store.specs.retrieval import Retrieval
from stages.store.workspace import Workspace
from tests.tiny_model import write_tiny_checkpoint
from tests.workbench.conftest import SIZES, add_dataset, screen_text, settled, wait_for
from tests.workbench.test_chat_screen import MakeApp, ask, chat_run, model, open_chat, run, transcript
from workbench.cli.root import run as command
from workbench.screens.chat import ChatScreen
from workbench.screens.source import SourceScreen
from workbench.settings import Settings
from workbench.talking.grounding import absolute_source, framed, sources_told
from workbench.widgets.form import SpecForm

__all__ = ["chat_run", "run"]  # fixtures

Snapshot = Callable[[Pilot[None], str], Awaitable[None]]
KITE = {"document": "pets.txt", "line": 3, "text": "Ada has a red kite."}
KEY = {"document": "deep/key.txt", "line": 1, "text": "The key is\nin the drawer."}


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "pets.txt").write_text("Some pets.\n\nAda has a red kite.\n")
    (folder / "key.txt").write_text("The key is in the drawer.\n")
    return folder


def test_passages_are_put_where_the_frame_says_as_many_as_fit() -> None:
    plain = Retrieval(source="x")
    assert framed("Q?", [KITE, KEY], plain, 1_000) == "Ada has a red kite.\n\nThe key is\nin the drawer.\n\nQ?"
    one_line = Retrieval(source="x", frame="{passages} {question}")
    assert framed("{passages}?", [KITE, KITE], one_line, 99) == "Ada has a red kite. Ada has a red kite. {passages}?"
    lines = Retrieval(source="x", frame="Asked: {question}\\nKnown: {passages}")
    assert framed("Q?", [KITE], lines, 99) == "Asked: Q?\nKnown: Ada has a red kite."
    assert framed("Q?", [], plain, 99) == "Q?"
    assert framed("Q?", [KITE, KEY], plain, 20) == "Ada has a red kite.\n\nQ?", "about half the context at most"
    assert framed("Q?", [KITE], plain, 4) == "Ada has \n\nQ?", "at least the beginning of the best"
    assert sources_told([KITE, KEY], "notes").splitlines()[1] == "source 2: deep/key.txt:1  The key is␊in the drawer."
    assert sources_told([], "notes") == "no passage of notes has a word of it"


def test_a_source_is_a_dataset_a_folder_or_refused(workspace: Workspace, notes: Path, monkeypatch: Any) -> None:
    add_dataset(workspace, "notes")
    monkeypatch.chdir(notes.parent)
    assert absolute_source(workspace, "notes") == "notes", "a dataset of that name comes first"
    assert absolute_source(workspace, "./notes") == str(notes)
    assert absolute_source(workspace, "notes/key.txt") == str(notes / "key.txt")
    for text in ("nothing", "~nobody-here/x", "notes/none"):
        with pytest.raises(UserError, match=r"no (file or )?folder"):
            absolute_source(workspace, text)


async def test_a_question_is_asked_with_passages_that_follow_the_files(
    make_app: MakeApp, chat_run: RunDir, notes: Path
) -> None:
    app = make_app(Settings(retrieval=Retrieval(source=str(notes), passages=1)))
    async with app.run_test(size=(120, 40)) as pilot:
        app.open_chat("tiny@100")
        await wait_for(pilot, lambda: isinstance(app.screen, ChatScreen) and "answers you" in model(pilot))
        await ask(pilot, "Which kite has Ada?")
        assert "user: Ada has a red kite.\n\nWhich kite has Ada?" in transcript(pilot)
        assert "source 1: pets.txt:3  Ada has a red kite." in transcript(pilot)
        (notes / "pets.txt").write_text("Ada has a \x1b[2Jblue kite.\n")
        await ask(pilot, "And which kite now, Ada?")
        told = "user: Which kite has Ada? | assistant: "
        assert told in transcript(pilot), "of earlier turns the question itself is sent"
        assert "user: Ada has a ␛[2Jblue kite.\n\nAnd which kite now, Ada?" in transcript(pilot)
        await ask(pilot, "xyzzy")
        assert "no passage of" in transcript(pilot)
        (notes / "pets.txt").unlink()
        (notes / "key.txt").unlink()
        notes.rmdir()
        await pilot.press(*"lost", "enter")
        await wait_for(pilot, lambda: "There is no folder" in transcript(pilot))


@pytest.mark.parametrize("size", SIZES)
async def test_f_opens_the_form_and_says_what_the_source_holds(
    make_app: MakeApp, run: RunDir, notes: Path, snapshot: Snapshot, size: tuple[int, int]
) -> None:
    async with (app := make_app()).run_test(size=size) as pilot:
        await open_chat(pilot)
        await pilot.press("escape", "f")
        await wait_for(pilot, lambda: isinstance(app.screen, SourceScreen))
        await snapshot(pilot, f"chat-source-{size[0]}x{size[1]}")
        form = app.screen.query_one(SpecForm)
        form.rows["source"].text = str(notes / "none")
        await pilot.press("enter")
        await wait_for(pilot, lambda: "There is no folder" in screen_text(app))
        form.rows["source"].text = str(notes)
        await pilot.press("enter")
        await wait_for(pilot, lambda: isinstance(app.screen, ChatScreen))
        await wait_for(pilot, lambda: any("2 documents, 3 passages" in note.message for note in app._notifications))
        await settled(pilot)
        assert isinstance(app.screen, ChatScreen) and app.screen.retrieval.source == str(notes)


def test_the_command_tells_its_sources_on_stderr(
    workspace: Workspace, notes: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = write_tiny_checkpoint(tmp_path / "tiny", context=128)
    options = ["--source", str(notes), "--passages", "1", "--device", "cpu", "--set", "max_new_tokens=4"]
    assert command(["chat", str(folder), "--once", "Where is the key?", *options]) == 0
    assert "source 1: key.txt:1  The key is in the drawer." in capfd.readouterr().err
    with pytest.raises(UserError, match="There is no folder, file or dataset 'nowhere'"):
        command(["chat", str(folder), "--once", "x", "--source", "nowhere"])
