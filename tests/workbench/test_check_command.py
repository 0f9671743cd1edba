"""`workbench data check` as a person uses it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from stages.store.checks import Bar, Check, Example, Finding, Lengths
from stages.store.errors import UserError
from stages.store.workspace import Workspace
from tests.workbench.conftest import add_dataset
from workbench.cli import check as cli_check
from workbench.cli.root import workbench
from workbench.records.check_lines import length_lines, value_text


def run(workspace: Workspace, *arguments: str) -> Result:
    environment = {"WORKBENCH_HOME": str(workspace.root)}
    return CliRunner().invoke(workbench, ["data", "check", *arguments], env=environment)


def test_a_file_is_examined_through_the_desk(workspace: Workspace, tmp_path: Path) -> None:
    rows = [{"prompt": f"What is {n}?", "completion": f"It is {n}."} for n in range(20)]
    rows.append({"prompt": "What is none?", "completion": "   "})
    path = tmp_path / "asked.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    shown = run(workspace, str(path))
    assert shown.exit_code == 0, shown.output
    assert "chat · 21 records" in shown.output and "Lengths in characters" in shown.output
    assert "empty answers: 1." in shown.output and "asked.jsonl:21" in shown.output
    assert "fix: --set drop_empty_answers=true" in shown.output
    found = json.loads(run(workspace, str(path), "--json").output)
    assert found["kind"] == "chat" and found["fixes"] == {"drop_empty_answers": True}


def test_of_a_folder_without_records_nothing_is_called_unsuspicious(workspace: Workspace, tmp_path: Path) -> None:
    shown = run(workspace, str(tmp_path))
    assert shown.exit_code == 0, shown.output
    assert "No record was found in it" in shown.output and "suspicious" not in shown.output


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the desk was asked; it answers that there is nothing to say."""
    calls: list[dict[str, Any]] = []

    def ask(workspace: Workspace, verb: str, *, on_progress: Any, **args: Any) -> Any:
        calls.append({"verb": verb, **args})
        raise UserError("asked")

    monkeypatch.setattr(cli_check, "ask_once", ask)
    return calls


def test_a_name_is_a_dataset_unless_there_is_such_a_file(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[dict[str, Any]]
) -> None:
    add_dataset(workspace, "notes")
    monkeypatch.chdir(tmp_path)
    run(workspace, "notes", "--against", "exam", "--tokenizer", "t")
    assert (asked[0]["verb"], asked[0]["dataset"]) == ("data.check", "notes")
    assert (asked[0]["against"], asked[0]["tokenizer"]) == (["exam"], "t")
    (tmp_path / "notes").write_text("text")
    run(workspace, "notes")
    assert "dataset" not in asked[1] and asked[1]["settings"]["sources"] == [str(tmp_path / "notes")]
    result = run(workspace, "nowhere.txt")
    assert isinstance(result.exception, UserError) and "nowhere.txt" in str(result.exception)


def test_a_histogram_fits_the_width_and_shows_every_record() -> None:
    bars = [Bar(0, 10, 100_000), Bar(10, 100, 1), Bar(100, 1_000, 0)]
    lines = list(length_lines(Lengths("tokens", 0, 99, 5.0, {"50 %": 5}, bars), 60))
    assert all(len(line) <= 60 for line in lines)
    assert lines[2].count("█") > 20 and lines[3].endswith("▏") and lines[4].endswith("0")


def test_fixes_add_up_and_are_written_as_the_command_line_takes_them() -> None:
    found = [
        Finding("a", "", 1, [Example("x:1", "")], {"max_line": 5}),
        Finding("b", "", 1, [], {"decontaminate": ["x"]}),
    ]
    report = Check(
        name="n",
        kind="text",
        records={},
        files=0,
        bytes=0,
        characters=0,
        notes=[],
        lengths=[],
        findings=found,
        problems=[],
        problem_count=0,
        sources=[],
    )
    assert report.fixes() == {"max_line": 5, "decontaminate": ["x"]}
    assert [value_text(value) for value in (True, 5, ["x", "y"], "z")] == ["true", "5", "x,y", "z"]
