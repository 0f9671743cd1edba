"""`workbench import` and `workbench models`: a real worker, what is printed, and what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.store.models import find_model
from stages.store.names import named_after
from stages.store.rundir import Parent, RunSpec, create_run, find_run
from stages.store.workspace import Workspace
from tests.stages.inside_kinds import KINDS
from tests.tiny_model import write_tiny_checkpoint
from tests.workbench.conftest import add_dataset, screen_text, settled, wait_for
from workbench import __main__ as entry
from workbench.app import WorkbenchApp
from workbench.models.tuning import tunable
from workbench.screens.importing import ImportScreen
from workbench.widgets.form import SpecForm

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], workspace: Workspace) -> Command:
    """Run `workbench ARGUMENTS` in this process: exit code, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["workbench", *arguments])
        code = entry.main()
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_checkpoint(tmp_path / "theirs", context=64)


def test_a_model_is_imported_listed_shown_and_deleted(command: Command, folder: Path, workspace: Workspace) -> None:
    code, out, err = command("import", str(folder), "--name", "m")
    assert code == 0, err
    assert "Imported m: gpt2, " in out and "workbench chat m" in out
    row = next(row for row in json.loads(command("models", "--json")[1]) if row["from"] == "imported")
    assert (row["name"], row["kind"], row["context"], row["dtype"]) == ("m", "gpt2", 64, "float32")
    shown = json.loads(command("models", "show", "m", "--json")[1])
    assert shown["source"] == str(folder) and shown["children"] == []
    assert "from" in command("models", "show", "m")[1]
    parents = {"checkpoint": Parent(str(workspace.models / "m"), shown["digest"])}
    create_run(workspace, RunSpec(stage="pretrain", name="child", settings={}, parents=parents))
    code, _, err = command("models", "delete", "m", "--yes")
    assert code == 2 and "run 'child'" in err
    assert command("runs", "delete", "child", "--yes")[0] == 0
    assert command("models", "delete", "m", "--yes")[0] == 0
    assert command("models", "show", "m")[0] == 2


def test_a_model_that_labels_is_imported_and_asked_by_its_name(
    command: Command, tmp_path: Path, workspace: Workspace
) -> None:
    (folder := tmp_path / "labelling").mkdir()
    KINDS["gpt2 classify"].write(folder)
    code, out, err = command("import", str(folder), "--name", "m")
    assert code == 0 and "`workbench classify m TEXT` tells what it says of a text" in out, err
    assert tunable(workspace) == [] and tunable(workspace, ("classify",)) == ["m"], "it writes nothing"
    code, out, err = command("classify", "m", "the cat", "--json")
    assert code == 0 and {row["label"] for row in json.loads(out)["labels"]} == {"a", "b", "c"}, err


def test_what_cannot_be_imported_is_one_line(command: Command, folder: Path, workspace: Workspace) -> None:
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"auto_map": {"AutoModel": "evil.Model"}}))
    code, _, err = command("import", str(folder), "--name", "m")
    assert code == 2 and "auto_map" in err and "Traceback" not in err
    error = find_run(workspace, "m").state().error
    assert error is not None and "auto_map" in error.message
    assert list(workspace.models.iterdir()) == [] or all(p.name.startswith(".lock") for p in workspace.models.iterdir())
    for arguments, says in (
        (["import", str(folder / "none"), "--name", "m"], "There is no folder"),
        (["import", "nobody/nothing", "--name", "m"], "Nothing is fetched from the network"),
        (["import", str(config), "--name", "m"], "is a file"),
        (["import", str(folder), "--name", "../m"], "cannot be the name"),
        (["import", str(folder / "none")], "There is no folder"),
        (["import", str(folder)], "Add --name NAME."),
    ):
        code, _, err = command(*arguments)
        assert code == 2 and says in err and err.count("\n") <= 2, err


def test_a_taken_name_is_refused_before_any_work(command: Command, folder: Path, workspace: Workspace) -> None:
    (workspace.models / "m").mkdir(parents=True)
    code, _, err = command("import", str(folder), "--name", "m")
    assert code == 2 and "already a model 'm'" in err


async def test_a_form_imports_a_model_named_after_its_folder_and_enter_goes_on_to_tuning(
    make_app: Callable[[], WorkbenchApp], folder: Path, workspace: Workspace
) -> None:
    add_dataset(workspace, "chats", kind="chat")
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        app.start_run("importing")
        await wait_for(pilot, lambda: isinstance(app.screen, ImportScreen))
        await settled(pilot)
        rows = app.screen.query_one(SpecForm).rows
        rows["source"].text = str(folder / "none")
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: "There is no folder" in screen_text(app))
        rows["source"].text = str(folder)
        await wait_for(pilot, lambda: rows["name"].text == named_after(str(folder)))
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: f"Tune {named_after(str(folder))} on chats" in screen_text(app))
    assert find_model(workspace, named_after(str(folder))).info.parameters
