"""`workbench import` and `workbench models`: a real worker, what is printed, and what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.store.rundir import Parent, RunSpec, create_run, find_run
from stages.store.workspace import Workspace
from tests.stages.inside_kinds import KINDS
from tests.tiny_model import write_tiny_checkpoint
from workbench import __main__ as entry
from workbench.models.tuning import tunable

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
