"""The student's whole life from an empty workspace: by enter alone, and with a dozen rankings of one's own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.store.checkpoints import list_checkpoints
from stages.store.labels import open_labels
from stages.store.rundir import RunDir, find_run
from stages.store.workspace import Workspace
from tests.e2e.terminal import Terminal, environment, workbench
from tests.stages.helpers import wait_until

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")

SMALL = """
[build]
max_same_answer = 1
[tokenizer]
vocab_size = 320
[pretrain]
layers = 1
heads = 2
width = 32
context = 64
batch_size = 8
steps = 20
warmup = 5
eval_every = 20
checkpoint_every = 20
sample_every = 20
sample_tokens = 8
[sft]
steps = 8
sample_tokens = 4
probes = false
[reward]
steps = 8
[dpo]
steps = 4
sample_tokens = 4
probes = false
[sample]
max_new_tokens = 16
[chat]
max_new_tokens = 16
"""
PATIENCE = 300.0
"""Seconds that a run may take on a machine that others use."""


class Student:
    """Reads the screen and presses enter."""

    def __init__(self, folder: Path, size: tuple[int, int]) -> None:
        settings = folder / "config" / "workbench"
        settings.mkdir(parents=True)
        (settings / "workbench.toml").write_text(SMALL)
        self.workspace = Workspace(folder / "home")
        self.terminal = Terminal(workbench(), environment(folder), folder=folder, width=size[0], height=size[1])

    def enter(self, *texts: str) -> None:
        """Press enter, once the screen shows these texts."""
        self.terminal.wait_for(*texts, seconds=PATIENCE)
        self.terminal.press("Enter")

    def step(self, form: str, name: str, onward: str) -> RunDir:
        """A form is open: start what it says, and go on from its run's screen once that offers what comes next."""
        self.enter(form, "enter starts it", name)
        self.enter(f"runs › {name}", "finished", onward)
        run = find_run(self.workspace, name)
        assert run.status() == "finished", run.log.read_text()
        return run

    def talk(self, checkpoint: str) -> None:
        """A chat is open: send what is proposed, and wait for the end of the answer."""
        self.enter(checkpoint, "enter sends “")
        self.terminal.wait_for("tokens/s", "seed", checkpoint, seconds=PATIENCE)

    def learn_to_talk(self) -> None:
        """From the empty workspace to a tuned model that has been talked to."""
        self.enter("nothing here yet", "Build a dataset: of the starter world")
        self.step("Build a dataset", "world", "Train a tokenizer on world")
        self.step("Train a tokenizer", "world-bpe", "Pre-train a model on world")
        self.step("Pre-train a model", "world-tiny", "Chat with world-tiny")
        self.talk("world-tiny@20")
        self.enter("enter goes on: Build the conversations")
        self.step("Build a dataset", "world-chat", "Tune world-tiny on world-chat")
        self.step("Tune a model on conversations", "world-tiny-sft", "Chat with world-tiny-sft")
        self.talk("world-tiny-sft@8")

    def learn_what_is_preferred(self, preferences: str) -> None:
        """From a dataset of rankings to a policy that has been talked to."""
        self.step("Train a reward model", "world-tiny-sft-reward", "Improve world-tiny-sft")
        self.step("Tune a model on preferences", "world-tiny-sft-dpo", "Chat with world-tiny-sft-dpo")
        self.talk("world-tiny-sft-dpo@4")
        policy = find_run(self.workspace, "world-tiny-sft-dpo")
        assert list_checkpoints(policy)[-1].step == 4
        assert policy.spec().parents["dataset"].name == preferences


@pytest.fixture
def students() -> Iterator[list[Student]]:
    opened: list[Student] = []
    yield opened
    for student in opened:
        student.terminal.close()


@pytest.mark.parametrize("size", [(120, 40), pytest.param((80, 24), marks=pytest.mark.soak)])
def test_enter_alone_leads_from_nothing_to_a_policy_that_talks(
    tmp_path: Path, students: list[Student], size: tuple[int, int]
) -> None:
    student = Student(tmp_path, size)
    students.append(student)
    student.learn_to_talk()
    student.enter("enter goes on: Build the rankings")
    student.step("Build a dataset", "world-preferences", "Train a reward model on world-preferences")
    student.learn_what_is_preferred("world-preferences")
    assert not student.workspace.labels.is_file(), "nobody has judged anything"


@pytest.mark.soak
def test_a_student_ranks_a_dozen_answers_and_the_model_learns_from_them(
    tmp_path: Path, students: list[Student]
) -> None:
    student = Student(tmp_path, (120, 40))
    students.append(student)
    student.learn_to_talk()
    terminal = student.terminal
    terminal.press("Escape")
    terminal.wait_for("i Write")
    terminal.press("H")
    terminal.wait_for("Build the rankings that a reward model learns from")
    terminal.press("Left")
    student.enter("Have world-tiny-sft answer a dozen prompts, to rank the answers")
    name = "world-tiny-sft-on-world-chat"
    student.enter("Have checkpoints write completions to judge", "12 of ", "prompts · ", "enter starts it")
    student.enter(f"runs › {name}", "finished", f"Judge {name}")
    with open_labels(student.workspace.ensure().labels) as labels:
        wait_until(lambda: any(one.name == name for one in labels.sets()), what="the set")
        (prompts,) = (one.prompts for one in labels.sets())
    for number in range(prompts):
        terminal.wait_for(f"prompt {number + 1} ", f"{number} of {prompts} judged by you", seconds=PATIENCE)
        terminal.press("Enter")  # says nothing, and so saves nothing
        terminal.wait_for("Put at least the best in its place", f"{number} of {prompts} judged by you")
        terminal.type("21")
        student.enter("order 2 > 1")
    student.enter(f"{prompts} of {prompts} judged by you", "Make a dataset of your labels")
    student.enter("Make a dataset of labels", "enter makes it", f"{prompts} rankings")
    student.enter(f"runs › {name}-labels", "finished", f"Train a reward model on {name}-labels")
    student.learn_what_is_preferred(f"{name}-labels")
