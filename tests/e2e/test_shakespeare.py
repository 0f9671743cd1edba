"""nanoGPT's CPU recipe on tiny Shakespeare, through both doors: at most 1.88 nats a byte on the held-out tail."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.terminal import Terminal, environment, workbench

TEXT = Path(os.environ.get("WORKBENCH_TEST_DATA", "")) / "tinyshakespeare" / "input.txt"

RECIPE = """
[build]
split = "tail:0.1"

[tokenizer]
type = "byte"

[pretrain]
layers = 4
heads = 4
width = 128
context = 64
batch_size = 12
steps = 2000
"""

pytestmark = [
    pytest.mark.bench,
    pytest.mark.skipif(not TEXT.is_file(), reason="WORKBENCH_TEST_DATA is not set"),
]


@pytest.fixture
def world(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "config" / "workbench").mkdir(parents=True)
    (tmp_path / "config" / "workbench" / "workbench.toml").write_text(RECIPE)
    variables = environment(tmp_path)
    del variables["OMP_NUM_THREADS"]
    return variables


def test_by_commands(tmp_path: Path, world: dict[str, str]) -> None:
    def run(*arguments: str) -> str:
        done = subprocess.run(
            workbench(*arguments), cwd=tmp_path, env=os.environ | world, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("data", "build", str(TEXT), "--name", "shakespeare")
    run("tokenizer", "train", "--data", "shakespeare", "--name", "bytes")
    summary = run("train", "pretrain", "--data", "shakespeare", "--tokenizer", "bytes", "--name", "nano")
    assert loss_in(summary) <= 1.88
    assert len(run("chat", "nano", "--once", "ROMEO:")) > 20


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_in_the_app(tmp_path: Path, world: dict[str, str], terminals: list[Terminal]) -> None:
    app = Terminal(workbench(), world, folder=tmp_path)
    terminals.append(app)
    app.wait_for("nothing here yet")
    app.press("Enter")
    app.wait_for("Build a dataset", "tail:0.1")
    app.press("C-u")
    app.type("shakespeare")
    app.press("Tab", "C-u")
    app.type(str(TEXT))
    app.press("C-r")
    app.wait_for("split tail:0.1")
    app.press("H")
    app.wait_for("✓ shakespe")
    app.press("Enter")
    app.wait_for("Train a tokenizer")
    app.press("C-r")
    app.wait_for("bytes per token 1.00")
    app.press("p")
    app.wait_for("Pre-train a model", "834,816")
    app.press("C-r")
    shown = app.wait_for("finished", "◆ val", "2,000/2,000", seconds=900)
    assert loss_in(shown) <= 1.88


def loss_in(text: str) -> float:
    """The validation loss that a summary or the plot's header names."""
    found = re.search(r"val(?:/loss)? (\d+\.\d+)", text)
    assert found is not None, text
    print(f"validation loss {found[1]} nats a byte")
    return float(found[1])
