"""BERT's pre-training as the detached worker it is: it learns, resumes bit for bit, and fills blanks afterwards."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForMaskedLM

from stages.asking.fill import Filler
from stages.store.checkpoints import list_checkpoints
from stages.store.errors import UserError
from stages.store.rundir import RunDir
from stages.store.workspace import Workspace
from tests.stages.helpers import TINY, finish, wait_until
from tests.stages.resuming import cut_off
from workbench import runs
from workbench.cli.root import run as command

SMALL = {name: value for name, value in TINY.items() if name != "sample_tokens"} | {
    "preset": "tiny-bert",
    "context": 24,
    "lr": 3e-3,
    "steps": 40,
}
TOLD = "the dog is green and big . the cow is blue and big . the hen is black and big ."
ANIMALS = ("cat", "dog", "cow", "hen")
WORDS = ("red", "green", "blue", "black")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The dataset `rhymes`, in which a colour follows from the animal, and a WordPiece tokenizer of it."""
    folder = tmp_path_factory.mktemp("bert")
    workspace = Workspace(folder / "ws").ensure()
    text = folder / "rhymes.txt"
    order = random.Random(0).choices(range(4), k=800)
    lines = [f"the {ANIMALS[n]} is {WORDS[n]} and big . " for n in order]
    text.write_text("\n\n".join("".join(lines[start : start + 8]) for start in range(0, 800, 8)))
    finish(runs.launch(workspace, "build", "rhymes", {"sources": [str(text)], "split": "tail:0.2"}))
    settings = {"type": "wordpiece", "vocab_size": 260}
    finish(runs.launch(workspace, "tokenizer", "pieces", settings, dataset="rhymes"))
    return workspace


def bert(workspace: Workspace, name: str, **settings: Any) -> RunDir:
    return runs.launch(workspace, "bert", name, SMALL | settings, dataset="rhymes", tokenizer="pieces")


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture(scope="module")
def learnt(workspace: Workspace) -> RunDir:
    enough = {"width": 64, "heads": 4, "lr": 4e-3, "batch_size": 32, "steps": 240}
    return finish(bert(workspace, "learnt", **enough, eval_every=120, checkpoint_every=240, sample_every=120))


def test_it_learns_to_fill_blanks(workspace: Workspace, learnt: RunDir) -> None:
    metrics = rows(learnt.metrics)
    validated = [row for row in metrics if "val/accuracy" in row]
    assert validated[-1]["val/loss"] < metrics[0]["train/loss"] / 4
    assert validated[-1]["val/accuracy"] > 0.7
    filler = Filler(list_checkpoints(learnt)[-1].path)
    told = TOLD.split()
    for blank in (2, 5, 7, 11, 16, 18):  # what stands there follows from the words around it
        asked = " ".join("___" if place == blank else word for place, word in enumerate(told))
        assert filler.fill(asked).blanks[0][0].text == told[blank]
    assert rows(learnt.samples)[-1]["text"]


def test_transformers_opens_the_checkpoint(learnt: RunDir) -> None:
    folder = list_checkpoints(learnt)[-1].path
    theirs = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32).eval()
    filler = Filler(folder)
    tokens = torch.arange(5, 15)[None]
    ours = filler.model.logits(filler.model.hidden_states(tokens))
    assert (ours - theirs(tokens).logits[0]).abs().max() < 1e-4


def test_killed_and_resumed_it_ends_with_the_bits_of_a_run_in_one_go(workspace: Workspace) -> None:
    whole = finish(bert(workspace, "whole"))
    cut = cut_off(bert(workspace, "cut", steps=40))
    other = finish(bert(workspace, "other", seed=1))
    last = [list_checkpoints(run)[-1].path / "model.safetensors" for run in (whole, cut, other)]
    assert last[0].read_bytes() == last[1].read_bytes()
    assert last[0].read_bytes() != last[2].read_bytes()


def test_a_decoder_preset_and_a_tokenizer_without_mask_are_refused(workspace: Workspace) -> None:
    run = bert(workspace, "wrong", preset="tiny")
    wait_until(lambda: not run.alive(), what="refusal")
    error = run.state().error
    assert error is not None
    assert "'tiny' is not an encoder" in error.message
    assert "tiny-bert" in error.hint


def test_fill_by_command(
    workspace: Workspace, learnt: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(workspace.root))
    assert command(["fill", "learnt", TOLD.replace("blue and", "blue ___"), "-n", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["text"] == TOLD
    assert len(found["blanks"][0]) == 3
    with pytest.raises(UserError, match="no blank"):
        command(["fill", "learnt", "the cow"])
    with pytest.raises(UserError, match="encoder"):
        command(["chat", "learnt", "--once", "hello"])
