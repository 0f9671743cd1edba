"""T5's pre-training as the detached worker it is: it learns, resumes bit for bit, and fills spans afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM

from stages.asking.fill import Filler
from stages.asking.text_to_text import write
from stages.data.corruption import Sentinels
from stages.data.tokenizer import TextTokenizer
from stages.generate import Sampling
from stages.models.t5 import load_t5
from stages.run import Run
from stages.store.checkpoints import list_checkpoints
from stages.store.errors import UserError
from stages.store.rundir import RunDir
from stages.store.workspace import Workspace
from stages.t5 import run
from tests.stages.helpers import TINY, finish, made_run
from tests.stages.resuming import cut_off
from workbench import runs
from workbench.cli.root import run as command

SMALL = {name: value for name, value in TINY.items() if name != "sample_tokens"} | {
    "preset": "tiny-t5",
    "context": 16,
    "lr": 3e-3,
}
WORDS = ("red", "orange", "yellow", "green", "blue", "indigo", "violet", "black", "white", "grey")
ROUND = " ".join(WORDS)
ASKED = f"{ROUND} red orange yellow ___"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The dataset `colours`, ten words in a circle, and a tokenizer of it with sentinels."""
    folder = tmp_path_factory.mktemp("t5")
    workspace = Workspace(folder / "ws").ensure()
    text = folder / "colours.txt"
    text.write_text("\n\n".join(f"{ROUND} " * 20 for _ in range(50)))
    finish(runs.launch(workspace, "build", "colours", {"sources": [str(text)], "split": "tail:0.2"}))
    settings = {"type": "bpe", "vocab_size": 400, "sentinels": 20}
    finish(runs.launch(workspace, "tokenizer", "pieces", settings, dataset="colours"))
    return workspace


def t5(workspace: Workspace, name: str, **settings: Any) -> RunDir:
    return runs.launch(workspace, "t5", name, SMALL | settings, dataset="colours", tokenizer="pieces")


def run_in(workspace: Workspace, name: str, **settings: Any) -> Run:
    """The same, for this process."""
    return made_run(workspace, "t5", name, SMALL | settings, dataset="colours", tokenizer="pieces")


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture(scope="module")
def learnt(workspace: Workspace) -> RunDir:
    """Texts of 18 tokens have one hidden span, which is always their end."""
    enough = {"width": 64, "heads": 4, "batch_size": 32, "steps": 160}
    return finish(t5(workspace, "learnt", **enough, eval_every=80, checkpoint_every=160, sample_every=80))


def test_it_learns_what_hidden_spans_held(learnt: RunDir) -> None:
    metrics = rows(learnt.metrics)
    validated = [row for row in metrics if "val/loss" in row]
    assert validated[-1]["val/loss"] < metrics[0]["train/loss"] / 4
    filler = Filler(list_checkpoints(learnt)[-1].path)
    filled = filler.fill(ASKED, 3)
    assert filled.text.startswith(ASKED.replace("___", "green blue"))
    assert filled.blanks[0][0].text.startswith("green blue")
    assert len(filled.blanks[0]) == 3
    assert 0 < sum(each.probability for each in filled.blanks[0]) <= 1.0001
    assert rows(learnt.samples)[-1]["text"]


def test_transformers_writes_the_same(learnt: RunDir) -> None:
    folder = list_checkpoints(learnt)[-1].path
    theirs = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = TextTokenizer.load(folder)
    sentinels = Sentinels.of(tokenizer)
    asked = [
        [*tokenizer.encode(before), int(sentinels.ids[0]), *tokenizer.encode(after), sentinels.end]
        for before, after in ((" red orange", " blue indigo"), (" green", " violet black white"))
    ]
    ours = write(load_t5(folder), asked, Sampling(0, max_new_tokens=12), start=tokenizer.pad_id, ends=[sentinels.end])
    for ids, found in zip(asked, ours, strict=True):
        wanted = theirs.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False)[0].tolist()
        ends = wanted.index(sentinels.end, 1) if sentinels.end in wanted[1:] else len(wanted)
        assert found == wanted[1:ends]


def test_killed_and_resumed_it_ends_with_the_bits_of_a_run_in_one_go(workspace: Workspace) -> None:
    whole = run_in(workspace, "whole")
    run(whole)
    cut = cut_off(t5(workspace, "cut"))
    last = [list_checkpoints(each)[-1].path / "model.safetensors" for each in (whole.dir, cut)]
    assert last[0].read_bytes() == last[1].read_bytes()


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"preset": "tiny"}, "'tiny' is not an encoder-decoder", "tiny-t5"),
        ({"context": 200, "span": 1}, "hidden spans, and the tokenizer has 20 sentinels", "longer spans"),
        ({"sample_prompts": ["no blank"]}, "no blank in the text", "___"),
    ],
)
def test_what_cannot_be_trained_is_refused(workspace: Workspace, changes: Any, message: str, hint: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        run(run_in(workspace, "wrong", **changes))
    assert hint in caught.value.hint


def test_fill_by_command(
    workspace: Workspace, learnt: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(workspace.root))
    assert command(["fill", "learnt", ASKED, "-n", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["text"].startswith(ASKED.replace("___", "green blue"))
    assert len(found["blanks"][0]) == 2
    with pytest.raises(UserError, match="no blank"):
        command(["fill", "learnt", "red"])
