"""Transformer-XL's pre-training: streams that go on, a memory that is resumed, and what it is good for."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stages import transformer_xl
from stages.asking.speaking import open_speaker
from stages.data.streams import Streams
from stages.run import Run
from stages.store.chat import Request
from stages.store.checkpoints import list_checkpoints
from stages.store.errors import UserError
from stages.store.rundir import RunDir
from stages.store.specs import transformer_xl as specs
from stages.store.specs.chat import Chat
from stages.store.workspace import Workspace
from stages.training.pretraining import Job, prepare
from stages.transformer_xl import Memory, Recurrent
from tests.stages.helpers import TINY, finish, made_run
from tests.stages.resuming import cut_off
from workbench import runs
from workbench.cli.root import run as command

SMALL = TINY | {"preset": "tiny-transformer-xl", "memory": 32, "lr": 3e-3, "batch_size": 16, "precision": "fp32"}
LINE = "abcdefghijklmnopq{}\n"
"""Longer than a segment: the figure of the line before can only be remembered."""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The dataset `figures`: documents of twelve lines that all end in one figure, another in each document."""
    folder = tmp_path_factory.mktemp("xl")
    workspace = Workspace(folder / "ws").ensure()
    (folder / "figures").mkdir()
    dice = np.random.default_rng(0)
    for number in range(400):
        (folder / "figures" / f"{number}.txt").write_text(LINE.format(dice.integers(10)) * 12)
    sources = [str(folder / "figures")]
    finish(runs.launch(workspace, "build", "figures", {"sources": sources, "split": "tail:0.25", "deduplicate": False}))
    finish(runs.launch(workspace, "tokenizer", "bytes", {"type": "byte"}, dataset="figures"))
    return workspace


def train(workspace: Workspace, name: str, **settings: Any) -> RunDir:
    return runs.launch(workspace, "transformer_xl", name, SMALL | settings, dataset="figures", tokenizer="bytes")


def run_in(workspace: Workspace, name: str, **settings: Any) -> Run:
    """The same, for this process."""
    return made_run(workspace, "transformer_xl", name, SMALL | settings, dataset="figures", tokenizer="bytes")


def job_in(workspace: Workspace, name: str, **settings: Any) -> Job:
    return opened(run_in(workspace, name, **settings))


def opened(run: Run) -> Job:
    return prepare(run, run.settings(specs.Recurrent), Recurrent)


def memory_of(job: Job) -> Tensor:
    assert isinstance(job.objective.carried, Memory)
    return job.objective.carried.held_LBMC


def validated(job: Job) -> float:
    while job.progress.step < job.settings.steps:
        job.step()
    return job.evaluate(whole=True)["val/loss"]


def test_streams_go_on_where_they_stood_and_begin_anew_together() -> None:
    streams = Streams(np.arange(101, dtype=np.uint16), 4, 8)
    assert streams.segments == 3
    first, second = streams.at(0), streams.at(1)
    assert first[:, 0].tolist() == [0, 25, 50, 75]
    assert np.array_equal(first[:, -1], second[:, 0])
    assert streams.begins(0) and streams.begins(3) and not streams.begins(1)
    assert np.array_equal(streams.at(3), first)
    with pytest.raises(UserError, match="too few for 20 streams"):
        Streams(np.arange(101, dtype=np.uint16), 20, 8)


def test_with_a_memory_the_loss_is_lower_at_equal_segment_length(workspace: Workspace) -> None:
    """A line is longer than a segment of 16, so that without a memory its figure is a guess among ten."""
    with_memory, without = (
        validated(job_in(workspace, f"m{memory}", memory=memory, steps=200, batch_size=32, width=64, heads=4))
        for memory in (32, 0)
    )
    guess = math.log(10) / len(LINE.format(0))
    assert without > guess
    assert with_memory < guess * 2 / 3


def test_the_memory_follows_its_rows_through_micro_batches(workspace: Workspace) -> None:
    whole, cut = (job_in(workspace, f"rows{rows}", micro_batch=rows) for rows in (16, 5))
    for _ in range(3):
        assert cut.step() == pytest.approx(whole.step(), rel=1e-3)
    assert memory_of(whole).shape == memory_of(cut).shape == (2, 16, 32, 32)
    assert torch.allclose(memory_of(whole), memory_of(cut), atol=1e-3)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_memory_that_runs_out_halves_the_rows_and_the_step_begins_with_what_it_remembered(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, poor = run_in(workspace, "enough", steps=8), run_in(workspace, "poor", steps=8, micro_batch=8)
    transformer_xl.run(whole)
    real = Recurrent.loss

    def loss(self: Recurrent, step: int, rows: range) -> Tensor:
        """The second half of step 4 does not fit, when the first has been computed."""
        if step >= 3 and rows.start and len(rows) > 4:
            raise torch.OutOfMemoryError("out of memory")
        return real(self, step, rows)

    monkeypatch.setattr(Recurrent, "loss", loss)
    transformer_xl.run(poor)
    for key in ("train/loss", "val/loss"):
        found, expected = ([row[key] for row in rows(run.dir.metrics) if key in row] for run in (poor, whole))
        assert found == pytest.approx(expected, rel=1e-3)
    told = [row["message"] for row in rows(poor.dir.events) if row["event"] == "warning"]
    assert told == [
        "Memory ran out at step 4: from here on 4 rows are computed at once instead of 8. A step still sees 16."
    ]
    assert [row["rows"] for row in rows(poor.dir.events) if row["event"] == "memory"] == [8]
    progress = json.loads((list_checkpoints(poor.dir)[-1].path / "resume" / "progress.json").read_bytes())
    assert progress["micro_batch"] == 4
    assert opened(Run(poor.dir.path)).memory.rows == 4


def test_killed_and_resumed_it_ends_with_the_bits_of_a_run_in_one_go(workspace: Workspace) -> None:
    whole = run_in(workspace, "whole", dropout=0.1)
    transformer_xl.run(whole)
    cut = cut_off(train(workspace, "cut", dropout=0.1))
    for name in ("model.safetensors", "resume/state.safetensors"):
        last = [list_checkpoints(run)[-1].path / name for run in (whole.dir, cut)]
        assert last[0].read_bytes() == last[1].read_bytes()
    assert rows(whole.dir.samples)[-1]["tokens"] == SMALL["sample_tokens"]


def test_a_run_of_it_is_spoken_to_and_other_stages_refuse_it(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finish(train(workspace, "spoken", steps=6))
    speaker = open_speaker(list_checkpoints(run)[-1].path, "cpu")
    assert speaker.kind == "base"
    answer = speaker.start(Request(id=1, prompt="abc" * 20), Chat(max_new_tokens=5, temperature=0.0))
    while answer.done is None:
        answer.step()
    assert (answer.done.tokens, answer.done.prompt_tokens) == (5, 60)
    with pytest.raises(UserError, match="no chat template"):
        speaker.start(Request(id=1, messages=[]), Chat())
    monkeypatch.setenv("WORKBENCH_HOME", str(workspace.root))
    assert command(["chat", "spoken", "--once", "abc", "--set", "max_new_tokens=4"]) == 0
    assert capsys.readouterr().out
