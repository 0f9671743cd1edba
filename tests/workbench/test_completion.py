"""What a shell is told to complete: names of what the workspace has, where a command takes one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from click.shell_completion import ShellComplete

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
