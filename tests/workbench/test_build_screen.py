"""The form that builds a dataset shows what its sources hold, and follows what is changed in it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot

from stages.store.names import check_name, named_after
from tests.workbench.conftest import screen_text, settled, wait_for
from workbench.app import WorkbenchApp
from workbench.screens.build import BuildScreen
from workbench.widgets.form import SpecForm

MakeApp = Callable[[], WorkbenchApp]


def written(path: Path, *rows: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


async def opened(pilot: Pilot[None], app: WorkbenchApp, source: Path) -> SpecForm:
    app.start_run("build", {"sources": [str(source)], "name": "mine"})
    await wait_for(pilot, lambda: isinstance(app.screen, BuildScreen))
    await settled(pilot)
    return app.screen.query_one(SpecForm)


async def test_kind_shape_fields_and_records_are_shown_and_the_kind_can_be_changed(
    make_app: MakeApp, tmp_path: Path
) -> None:
    path = written(tmp_path / "sums.jsonl", {"question": "2 + 2?", "answer": "4", "level": "easy"})
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        form = await opened(pilot, app, path)
        shown = await wait_for(pilot, lambda: "question and answer" in screen_text(app) and screen_text(app))
        assert "chat records from 1 file" in shown and "fields question, answer" in shown and "meta   level" in shown
        assert "user  2 + 2?" in shown and "assistant  4" in shown
        form.rows["kind"].text = "prompts"
        await wait_for(pilot, lambda: "prompts records from 1 file" in screen_text(app))
        assert "answer  4" in screen_text(app)


async def test_unknown_fields_are_named_and_a_mapping_makes_them_known(make_app: MakeApp, tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", {"frage": "Warum?", "antwort": "Darum."})
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        form = await opened(pilot, app, path)
        await wait_for(pilot, lambda: "its fields are: frage, antwort" in " ".join(_pane(app).split()))
        form.rows["mapping"].text = "prompt=frage, completion=antwort"
        await wait_for(pilot, lambda: "prompt and completion" in _pane(app))
        assert "frage as prompt" in _pane(app)


@pytest.mark.parametrize("size", [(80, 24), (40, 12)])
async def test_a_missing_file_is_a_sentence_at_any_size(
    make_app: MakeApp, tmp_path: Path, size: tuple[int, int]
) -> None:
    app = make_app()
    async with app.run_test(size=size) as pilot:
        await opened(pilot, app, tmp_path / "gone.jsonl")
        assert "There is no file" in _pane(app)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("starter:world", "world"),
        ("/data/My chats (1).jsonl.gz", "My-chats-1"),
        ("~/notes/", "notes"),
        ("org/set", "set"),
        ("../..", "data"),
        (".hidden", "hidden"),
    ],
)
def test_a_dataset_is_named_after_its_source(source: str, name: str) -> None:
    assert check_name(named_after(source)) == name


async def test_the_name_follows_the_first_source_until_a_person_names_it(make_app: MakeApp, tmp_path: Path) -> None:
    paths = [written(tmp_path / name, {"text": "a"}) for name in ("my chats.jsonl", "more.jsonl")]
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        form = await opened(pilot, app, paths[0])
        form.rows["sources"].text = str(paths[1])
        await wait_for(pilot, lambda: form.rows["name"].text == "more")
        form.rows["name"].text = "own"
        form.rows["sources"].text = str(paths[0])
        await settled(pilot)
        assert form.rows["name"].text == "own"


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (160, 50)])
async def test_sentences_have_room_at_every_width(make_app: MakeApp, tmp_path: Path, size: tuple[int, int]) -> None:
    app = make_app()
    async with app.run_test(size=size) as pilot:
        form = await opened(pilot, app, written(tmp_path / "mine.jsonl", {"text": "a"}))
        assert all(note.size.width >= 38 for note in form.query(".note"))


def _pane(app: WorkbenchApp) -> str:
    from textual.widgets import Static

    return str(app.screen.query_one("#look", Static).render())
