"""A reward model by command: scores of answers, labels in its name, and a set of what is worth asking."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from stages.measuring.scorer import Scorer
from stages.store.errors import UserError
from stages.store.labels import open_labels
from stages.store.records import Message
from stages.store.workspace import Workspace
from tests.stages.store.labels.conftest import tasks
from tests.tiny_model import write_tiny_checkpoint, write_tiny_judge
from workbench.cli.root import run as command


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    made = Workspace(tmp_path / "ws").ensure()
    monkeypatch.setenv("WORKBENCH_HOME", str(made.root))
    write_tiny_judge(made.models / "judge")
    return made


def test_answers_are_scored_in_their_order(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    command(["score", "judge", "--prompt", "2+2", "--answer", "4", "--answer", "It is 5.", "--json"])
    rows = json.loads(capsys.readouterr().out)
    with Scorer(workspace.models / "judge") as scorer:
        wanted = [scorer.score([Message("user", "2+2")], text).raw for text in ("4", "It is 5.")]
    assert [row["completion"] for row in rows] == ["4", "It is 5."]
    assert [row["raw"] for row in rows] == pytest.approx(wanted, abs=1e-5)
    assert [row["name"] for row in rows] == ["0", "1"]


def test_a_file_of_answers_is_scored_and_what_does_not_fit_is_said(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": "\x1b]0;x\x07" + "b" * 200}]
    data = "\n".join(map(json.dumps, lines)).encode()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    command(["score", "judge", "--file", "-"])
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 3 and "96 tokens" in shown[2] and "\x1b" not in "".join(shown)
    (tmp_path / "answers.jsonl").write_text('{"prompt": "a", "completion": "b"}\n{"prompt": 3}\n')
    with pytest.raises(UserError, match="line 2"):
        command(["score", "judge", "--file", str(tmp_path / "answers.jsonl")])


def test_what_cannot_score_is_refused(workspace: Workspace) -> None:
    write_tiny_checkpoint(workspace.models / "writer")
    with pytest.raises(UserError, match="holds no reward model"):
        command(["score", "writer", "--prompt", "a", "--answer", "b"])
    with pytest.raises(UserError, match="nothing to score"):
        command(["score", "judge"])
    with pytest.raises(UserError, match=r"no run .judge."):
        command(["reward", "report", "judge"])


def test_a_set_is_labelled_and_the_most_telling_prompts_are_picked(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_labels(workspace.labels) as labels:
        labels.add_set("mine", "rank", tasks(4))
    quiet = ["--set", "device=cpu", "--set", "threads=1"]
    command(["labels", "by-model", "mine", "--reward", "judge", *quiet])
    assert "4 rankings of mine are in the name of model:judge." in capsys.readouterr().out
    command(["labels", "ask", "mine", "--reward", "judge", "--name", "next", "--most", "2", *quiet])
    assert "Made the label set next of 2 prompts." in capsys.readouterr().out
    command(["labels", "stats", "mine", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["labels"] == 0  # a model's are left out
    with pytest.raises(UserError, match="already a label set 'next'"):
        command(["labels", "ask", "mine", "--reward", "judge", "--name", "next", *quiet])
