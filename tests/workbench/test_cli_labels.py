"""`workbench labels` and `data from-labels`: sets made, taken in, told of, written out and frozen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.store.datasets import find_dataset
from stages.store.errors import UserError
from stages.store.labels import open_labels
from stages.store.workspace import Workspace
from workbench.cli import labels as cli_labels
from workbench.cli.root import run
from workbench.talking import desk_client

RANKINGS = [
    {
        "messages": [{"role": "user", "content": f"Question {number}?"}],
        "completions": [f"good {number}", f"fair {number}", f"bad {number}"],
        "ranks": [1, 2, 2],
        "annotator": who,
        "source": "test",
        "meta": {"part": "reward"},
    }
    for number in range(12)
    for who in ("ada", "ben")
]


@pytest.fixture
def command(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run a command on the test's workspace; its exit code."""
    monkeypatch.setenv("WORKBENCH_HOME", str(workspace.root))
    monkeypatch.setenv("USER", "eve")
    return lambda *arguments: run([str(argument) for argument in arguments])


@pytest.fixture
def rankings(tmp_path: Path) -> Path:
    path = tmp_path / "rankings.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in RANKINGS))
    return path


def test_rankings_are_taken_in_once_and_go_out_as_they_came(
    command: Callable[..., int], rankings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("labels", "import", rankings, "--name", "mine") == 0
    assert "Took in 24 rankings of 24 records" in capsys.readouterr().out
    assert command("labels", "import", rankings, "--name", "mine") == 0
    assert "Took in 0 rankings" in capsys.readouterr().out
    assert command("labels", "export", tmp_path / "out.jsonl") == 0
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(one["completions"], one["ranks"], one["annotator"]) for one in written] == [
        (one["completions"], one["ranks"], one["annotator"]) for one in RANKINGS
    ]
    capsys.readouterr()
    assert command("labels", "export", tmp_path / "pairs.jsonl", "--format", "trl", "--annotator", "ada") == 0
    said = capsys.readouterr().out
    assert "Wrote 24 lines" in said and "warning: ties were left out (12)" in said
    with pytest.raises(UserError, match="is there already"):
        command("labels", "export", tmp_path / "out.jsonl")
    with pytest.raises(UserError, match="Nobody called 'adda' has labelled here"):
        command("labels", "export", tmp_path / "none.jsonl", "--annotator", "adda")
    assert not (tmp_path / "none.jsonl").exists()


@pytest.mark.parametrize("folder", [".", "..", "/"])
def test_labels_are_not_written_over_a_folder(workspace: Workspace, folder: str) -> None:
    open_labels(workspace.labels).close()
    with pytest.raises(UserError, match="is a folder"):
        run(["labels", "export", folder, "--force"])


def test_figures_are_told_and_are_json_on_request(
    command: Callable[..., int], rankings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="no labels yet"):
        command("labels", "stats")
    command("labels", "import", rankings, "--name", "mine")
    capsys.readouterr()
    assert command("labels", "stats", "mine", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["by_annotator"] == {"ada": 12, "ben": 12}
    assert found["between"][0]["who"] == "ada and ben"
    assert found["conflicts"] == []
    assert command("labels", "sets", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["prompts"], row["judged"], row["by_you"]) == ("mine", 12, 0, 0)


def test_labels_freeze_into_datasets_that_stages_read(
    command: Callable[..., int], rankings: Path, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    command("labels", "import", rankings, "--name", "mine")
    assert command("data", "from-labels", "--name", "pairs", "--annotator", "ada") == 0
    assert command("data", "from-labels", "--name", "best", "--best", "--agreed", "--label-set", "mine") == 0
    assert find_dataset(workspace, "pairs").info.kind == "preference"
    assert sum(find_dataset(workspace, "pairs").info.records.values()) == 12
    assert find_dataset(workspace, "best").info.kind == "chat"
    assert list((workspace.root / "spool").iterdir()) == []
    with pytest.raises(UserError, match="no day"):
        command("data", "from-labels", "--name", "other", "--since", "yesterday")
    with pytest.raises(UserError, match="No label"):
        command("data", "from-labels", "--name", "other", "--until", "1999-12-31")
    with pytest.raises(UserError, match="Nobody called 'aba' has labelled here") as error:
        command("data", "from-labels", "--name", "other", "--annotator", "ben", "--annotator", "aba")
    assert "'ada'" in error.value.hint


def test_a_set_is_made_from_a_dataset_and_its_rankings_do_not_count_as_done(
    command: Callable[..., int], rankings: Path, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("data", "build", rankings, "--name", "given") == 0
    assert command("labels", "new", "again", "--from", "given") == 0
    with open_labels(workspace.labels) as labels:
        chosen = labels.find_set("again")
        assert (chosen.prompts, len(labels.labels(chosen.id))) == (12, 24)
        assert labels.count(chosen.id) == 0
        shown = labels.next(chosen.id, "eve")
        assert shown is not None and shown.prompt.part == "reward"
    with pytest.raises(UserError, match="already a label set"):
        command("labels", "new", "again", "--from", "given")


def test_a_set_that_was_broken_off_on_the_way_is_made_anew(
    command: Callable[..., int], rankings: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("data", "build", rankings, "--name", "given") == 0
    asked, pages = desk_client.ask_once, iter([True, False])

    def ask(*arguments: Any, **question: Any) -> Any:
        if not next(pages, True):
            raise KeyboardInterrupt
        return asked(*arguments, **question)

    monkeypatch.setattr(cli_labels, "PAGE", 20)
    monkeypatch.setattr(desk_client, "ask_once", ask)
    assert command("labels", "new", "again", "--from", "given") != 0
    assert command("labels", "new", "again", "--from", "given") == 0
    with open_labels(workspace.labels) as labels:
        assert (labels.find_set("again").prompts, len(labels.labels())) == (12, 24)


def test_a_backup_brings_labels_back(
    command: Callable[..., int], rankings: Path, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    command("labels", "import", rankings, "--name", "mine")
    assert command("labels", "backup") == 0
    workspace.labels.write_bytes(b"damaged" * 1_000)
    assert command("labels", "restore", "--yes") == 0
    with open_labels(workspace.labels) as labels:
        assert len(labels.labels()) == 24
