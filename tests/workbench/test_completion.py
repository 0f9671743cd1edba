"""What a shell is told to complete: names of what the workspace has, where a command takes one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from click.shell_completion import ShellComplete

from stages.store.groups import Group, write_group
from stages.store.labels import open_labels
from stages.store.lineage import delete_run
from stages.store.workspace import Workspace
from workbench.cli.root import workbench


@pytest.fixture(autouse=True)
def here(populated: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(populated.root))


def completed(*arguments: str, incomplete: str = "") -> list[str]:
    shell = ShellComplete(workbench, {}, "workbench", "_WORKBENCH_COMPLETE")
    return [item.value for item in shell.get_completions(list(arguments), incomplete)]


def test_names_are_completed_where_they_are_taken() -> None:
    assert completed("runs", "show", incomplete="w") == ["world", "world-bpe", "world-tiny"], "builds are runs too"
    assert set(completed("compare")) >= {"world-tiny", "too-hot", "cut-off"}
    assert completed("chat", incomplete="wor") == ["world-tiny", "world-tiny@2000"]
    assert completed("chat", incomplete="world-tiny@") == ["world-tiny@2000"]
    assert completed("train", "pretrain", "--data") == ["notes", "world"]
    assert completed("train", "pretrain", "--tokenizer") == ["world-bpe"]
    assert completed("runs", "show", incomplete="nothing-begins-so") == []
    assert completed("runs", incomplete="sh") == ["show"]


def test_every_place_that_takes_a_name_completes_those_of_its_kind(populated: Workspace) -> None:
    assert completed("data", "show") == ["notes", "world"] == completed("data", "delete")
    assert completed("tokenizer", "show") == ["world-bpe"] == completed("tokenizer", "delete")
    assert "gpt2-small" in completed("models", "show") and completed("models", "delete") == []
    assert completed("sample", "--prompts") == ["notes", "world"]
    assert completed("train", "ppo", "--reference", incomplete="world-t") == ["world-tiny", "world-tiny@2000"]
    assert "gpt2-small" in completed("train", "pretrain", "--preset")
    assert completed("labels", "stats") == [] and not populated.labels.exists(), "looking makes no file"
    with open_labels(populated.labels) as labels:
        labels.add_set("capitals", "rank", [])
    for words in (("labels", "stats"), ("labels", "export", "--label-set"), ("labels", "by-model")):
        assert completed(*words) == ["capitals"]
    write_group(populated, Group(name="rates", kind="sweep", stage="pretrain", settings={}))
    write_group(populated, Group(name="law", kind="scale", stage="pretrain", settings={}))
    assert completed("sweeps", "show") == ["law", "rates"] == completed("sweeps", "forget")
    assert completed("scale", "show") == ["law"] == completed("scale", "next")
    delete_run(populated, "too-hot")
    assert completed("bin", "restore") == ["too-hot"] == completed("bin", "empty")


def test_settings_that_cannot_be_read_complete_nothing(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("settings")
    (folder / "workbench.toml").write_text("[")
    monkeypatch.chdir(folder)
    assert completed("runs", "show") == []


def test_a_shell_is_answered_without_torch() -> None:
    asks = "import sys; from workbench.cli.root import run; run([]); assert 'torch' not in sys.modules"
    words = {"_WORKBENCH_COMPLETE": "bash_complete", "COMP_WORDS": "workbench runs show world-t", "COMP_CWORD": "3"}
    done = subprocess.run([sys.executable, "-c", asks], env={**os.environ, **words}, capture_output=True, text=True)
    assert done.stdout.split() == ["plain,world-tiny"], done.stderr
