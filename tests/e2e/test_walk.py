"""The main job in a real terminal: from a folder of text to a chat, with the terminal closed on the way."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.store.checkpoints import list_checkpoints
from stages.store.rundir import RunDir, find_run
from stages.store.workspace import Workspace
from tests.e2e.terminal import Terminal, environment, workbench
from tests.stages.helpers import wait_until
from workbench import runs
from workbench.themes import STATUS_SYMBOLS

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")

SMALL = """
[pretrain]
layers = 1
heads = 2
width = 32
context = 32
batch_size = 8
steps = 400
lr = 5e-3
warmup = 10
eval_every = 100
checkpoint_every = 100
sample_every = 100
sample_tokens = 16

[tokenizer]
vocab_size = 320
"""


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


def replace_text(terminal: Terminal, text: str) -> None:
    """Type over what stands in the focused field."""
    terminal.press("C-u")
    terminal.type(text)


def trained(run: RunDir) -> int:
    """Steps of training so far; 0 while the dataset is being encoded."""
    state = run.state()
    return state.step if state.unit == "steps" else 0


@pytest.mark.parametrize("size", [(120, 40), pytest.param((80, 24), marks=pytest.mark.soak)])
def test_from_a_folder_of_text_to_chat(tmp_path: Path, terminals: list[Terminal], size: tuple[int, int]) -> None:
    world = environment(tmp_path)
    (tmp_path / "config" / "workbench").mkdir(parents=True)
    (tmp_path / "config" / "workbench" / "workbench.toml").write_text(SMALL)
    folder = tmp_path / "texts"
    folder.mkdir()
    for n in range(30):
        (folder / f"song-{n}.txt").write_text(f"{n} green bottles hanging on the wall.\n" * 40)
    workspace = Workspace(tmp_path / "home")

    app = Terminal(workbench(), world, folder=tmp_path, width=size[0], height=size[1])
    terminals.append(app)
    app.wait_for("nothing here yet", "next")
    app.press("Enter")
    app.wait_for("Build a dataset")
    replace_text(app, "songs")
    app.press("Tab")
    replace_text(app, str(folder))
    app.press("C-r")
    app.wait_for("built the dataset songs: 30 records", "Train a tokenizer on songs")

    app.press("H")
    app.wait_for("✓ songs")
    app.press("Enter")
    app.wait_for("Train a tokenizer", "songs-bpe")
    app.press("C-r")
    app.wait_for("bytes each", "Pre-train a model on songs")

    app.press("H")
    app.wait_for("✓ songs-bpe"[: 9 if size[0] < 100 else 11])
    app.press("Enter")
    app.wait_for("Pre-train a model", "songs-tiny")
    app.press("C-r")
    app.wait_for("running", "loss", "/400 steps")
    run = find_run(workspace, "songs-tiny")
    wait_until(lambda: trained(run) >= 5, what="a few steps")
    app.close()
    assert run.alive(), run.log.read_text()

    again = Terminal(workbench(), world, folder=tmp_path, width=size[0], height=size[1])
    terminals.append(again)
    again.wait_for("songs-tiny")
    again.press("R")
    again.wait_for("songs-tiny")
    again.press("Enter")
    again.wait_for("finished", "loss", "val", seconds=180)
    assert list_checkpoints(run)[-1].step == 400

    again.press("c")
    again.wait_for("songs-tiny@400", "continues your text", seconds=180)
    again.type("7 green bot")
    again.press("Enter")
    wait_until(lambda: bool(re.search(r"tokens/s · .* · seed \d", again.screen())), what="the end of the answer")
    again.press("Escape")
    again.wait_for("i Write")
    again.press("q")
    wait_until(lambda: "songs-tiny" not in _screen(again), what="the app to close")


def _screen(terminal: Terminal) -> str:
    try:
        return terminal.screen()
    except Exception as error:
        if type(error).__name__ != "CalledProcessError":
            raise
        return ""


def left_to_itself(tmp_path: Path, terminals: list[Terminal], world: dict[str, str]) -> RunDir:
    """A long run of the app, some steps in; the app that started it was killed."""
    (tmp_path / "config" / "workbench").mkdir(parents=True)
    settings = SMALL.replace("steps = 400", "steps = 100_000")
    (tmp_path / "config" / "workbench" / "workbench.toml").write_text(settings)
    app = Terminal(workbench(), world, folder=tmp_path)
    terminals.append(app)
    app.wait_for("nothing here yet")
    app.press("s")
    workspace = Workspace(tmp_path / "home")
    wait_until(lambda: any(workspace.runs.glob("*-pretrain-*/metrics.jsonl")), seconds=180, what="pre-training")
    run = find_run(workspace, "world-tiny")
    wait_until(lambda: trained(run) >= 20, what="steps")
    app.kill()
    return run


def test_killing_the_app_leaves_the_run_alone(tmp_path: Path, terminals: list[Terminal]) -> None:
    world = environment(tmp_path)
    run = left_to_itself(tmp_path, terminals, world)
    before = trained(run)
    wait_until(lambda: trained(run) > before + 20, what="the run to go on")
    again = Terminal(workbench(), world, folder=tmp_path)
    terminals.append(again)
    again.wait_for("world-tiny")
    again.press("R")
    again.wait_for("world-tiny", "steps/s")
    again.press("Enter")
    again.wait_for("runs › world-tiny", "running", "loss")
    again.press("s")
    again.wait_for("Stop world-tiny?")
    again.press("y")
    wait_until(lambda: not run.alive(), what="the end")
    assert run.status() == "stopped"


@pytest.mark.soak
def test_the_next_app_shows_a_run_at_work_within_two_seconds(tmp_path: Path, terminals: list[Terminal]) -> None:
    """From the command to the run on the screen, the best of five: other work on the machine takes its part."""
    world = environment(tmp_path)
    run = left_to_itself(tmp_path, terminals, world)
    took = []
    for _ in range(5):
        began = time.monotonic()
        again = Terminal(workbench(), world, folder=tmp_path)
        terminals.append(again)
        again.wait_for("world-tiny", STATUS_SYMBOLS["running"])
        took.append(time.monotonic() - began)
        again.kill()
    print(f"shown after {', '.join(f'{seconds:.2f}' for seconds in took)} s")
    before = trained(run)
    wait_until(lambda: trained(run) > before, what="the run to go on")
    runs.stop(run)
    wait_until(lambda: not run.alive(), what="the end")
    assert min(took) <= 2
