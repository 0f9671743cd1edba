"""Labels out of one workspace into another: through files, by commands, and nothing is lost that the format carries."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.store.labels import Candidate, Prompt, open_labels
from stages.store.records import Message
from stages.store.workspace import Workspace
from workbench.cli.root import run

Command = Callable[..., int]
DATA = Path(os.environ.get("WORKBENCH_TEST_DATA", "/nonexistent"))
HH = DATA / "hh_rlhf" / "harmless-base_test.jsonl.gz"

TALK = [Message("system", "Be kind."), Message("user", "Hi"), Message("assistant", "Yes?"), Message("user", "Why?")]
HOSTILE = ("海の\u202e灯台", "\x1b]0;owned\x07", "=1+1", "e\u0301" * 40)
TEXTS = ("plain", "", "  spaces  ", 'quo"ted, with\r\nlines', *HOSTILE, "w" * 200_000)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command on a workspace; its exit code."""
    monkeypatch.setenv("USER", "eve")

    def act(workspace: Workspace, *arguments: Any) -> int:
        monkeypatch.setenv("WORKBENCH_HOME", str(workspace.root))
        return run([str(argument) for argument in arguments])

    return act


def judge(workspace: Workspace) -> None:
    """Two people's rankings of up to nine completions, with ties, ratings, notes and a verdict; and a model's."""
    with open_labels(workspace.ensure().labels) as labels:
        tasks = [
            (
                Prompt(messages=messages, part="policy", source="here", meta={"topic": messages[-1].content}),
                [Candidate(run="r", k=k, text=text, checkpoint=f"m@{k}") for k, text in enumerate(TEXTS[:many])],
            )
            for messages, many in ((TALK, 9), ([Message("user", "What, then?")], 4), ([Message("user", "Two?")], 2))
        ]
        chosen = labels.add_set("mixed", "rank", tasks, people=2)
        for place, many in enumerate((9, 4, 2)):
            for who in ("ada", "ben"):
                shown = labels.at(chosen.id, place)
                assert shown is not None
                label = shown.label(
                    "rank",
                    who,
                    ranks=[1 + (one.id * (3 if who == "ada" else 5)) % many for one in shown.completions],
                    scores=[float(one.id % 7 + 1) for one in shown.completions] if who == "ben" else None,
                    note=f"{who} thinks so" if place else "",
                    verdict="all bad" if who == "ada" and place == 2 else "",
                )
                labels.save(label)
        shown = labels.at(chosen.id, 0)
        assert shown is not None
        labels.save(shown.label("rank", "judge", ranks=[1] * 9, origin="model:judge@10"))


def rankings(path: Path) -> list[dict[str, Any]]:
    """Exported rankings in one order, without the numbers that belong to a database."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    for one in found:
        one["meta"].pop("label")
        one["meta"].pop("origin", None)
    return sorted(found, key=lambda one: json.dumps(one, sort_keys=True))


@pytest.mark.parametrize("form", ["kway", "csv"])
def test_labels_come_through_a_file_as_they_were(command: Command, tmp_path: Path, form: str) -> None:
    first, second = Workspace(tmp_path / "first"), Workspace(tmp_path / "second")
    judge(first)
    file = tmp_path / ("labels.csv" if form == "csv" else "labels.jsonl")
    assert command(first, "labels", "export", file, "--format", form, "--models") == 0
    assert command(first, "labels", "export", tmp_path / "before.jsonl", "--models") == 0
    assert command(second, "labels", "import", file, "--name", "mixed") == 0
    assert command(second, "labels", "export", tmp_path / "after.jsonl", "--models") == 0
    before = rankings(tmp_path / "before.jsonl")
    assert len(before) == 7
    assert rankings(tmp_path / "after.jsonl") == before

    assert command(second, "labels", "export", tmp_path / "people.jsonl") == 0
    assert {one["annotator"] for one in rankings(tmp_path / "people.jsonl")} == {"ada", "ben"}, "a model stays a model"


@pytest.mark.skipif(not HH.exists(), reason="WORKBENCH_TEST_DATA has no HH-RLHF")
def test_every_pair_of_hh_comes_in_goes_out_and_comes_back(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = Workspace(tmp_path / "first"), Workspace(tmp_path / "second")
    assert command(first, "labels", "import", HH, "--name", "hh") == 0
    assert "Took in 2,312 rankings of 2,312 records" in capsys.readouterr().out
    assert command(first, "labels", "export", tmp_path / "hh.jsonl", "--format", "hh") == 0
    said = capsys.readouterr().out
    assert "Wrote 2,312 lines" in said and "warning" not in said
    assert command(second, "labels", "import", tmp_path / "hh.jsonl", "--name", "hh") == 0
    for number, workspace in enumerate((first, second)):
        assert command(workspace, "labels", "export", tmp_path / f"{number}.jsonl") == 0
    before, after = ([json.loads(line) for line in (tmp_path / f"{n}.jsonl").read_text().splitlines()] for n in (0, 1))
    keys = ("messages", "completions", "ranks")
    assert [[one[key] for key in keys] for one in after] == [[one[key] for key in keys] for one in before]
