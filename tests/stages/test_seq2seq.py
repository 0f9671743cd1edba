"""Text-to-text tuning: pairs of every kind, masks and means checked, learnt, resumed bit for bit, asked by command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM

from stages import evaluate, seq2seq
from stages.asking.speaking import open_speaker
from stages.data.pairs import Pair, Pairs, pairs_of
from stages.data.tokenizer import TextTokenizer, save_tokenizer, train_tokenizer
from stages.models.loss import IGNORED
from stages.models.t5 import new_t5, prefixes_in, save_t5
from stages.run import Run
from stages.seq2seq import Job, prepare
from stages.store.architecture import ModelConfig
from stages.store.chat import Done, Request, Turn
from stages.store.checkpoints import list_checkpoints, write_checkpoint
from stages.store.errors import UserError
from stages.store.evaluations import read_evaluation
from stages.store.records import ChatRecord, LabelledRecord, Message, PromptRecord, TextRecord
from stages.store.rundir import RunDir
from stages.store.specs.chat import Chat
from stages.store.workspace import Workspace
from tests.stages.data.chats import chat_dataset
from tests.stages.data.labels import labelled_dataset
from tests.stages.helpers import finish, made_run
from tests.stages.resuming import cut_off
from workbench import runs
from workbench.cli.root import run as command

TINY_T5 = ModelConfig(
    family="t5",
    layers=2,
    heads=2,
    width=32,
    context=48,
    vocab_size=266,
    norm_kind="rms",
    positions="relative",
    bias=False,
    activation="relu",
    scaled_logits=True,
)
SMALL = {
    "steps": 24,
    "batch_size": 8,
    "lr": 3e-3,
    "warmup": 2,
    "threads": 1,
    "dropout": 0.0,
    "eval_every": 12,
    "checkpoint_every": 6,
    "sample_every": 12,
    "answer_tokens": 16,
    "device": "cpu",
    "precision": "fp32",
}
COLOURS = {"grass": "green", "sky": "blue", "coal": "black", "snow": "white"}


def write_tiny_t5(final: Path) -> Path:
    """A random T5 of a few thousand parameters with a byte tokenizer, as a checkpoint folder."""

    def fill(folder: Path) -> None:
        save_tokenizer(train_tokenizer([], "byte", 266, split_digits=False, sentinels=6), folder)
        tokenizer = TextTokenizer.load(folder)
        save_t5(new_t5(TINY_T5, 0), folder, pad_id=tokenizer.pad_id, eos_id=tokenizer.eos_id)

    return write_checkpoint(final, fill).path


def coloured(count: int) -> list[LabelledRecord]:
    things = list(COLOURS)
    return [
        LabelledRecord(task="classify", texts=[f"{'so ' * (n % 3)}{things[n % 4]}"], label=COLOURS[things[n % 4]])
        for n in range(count)
    ]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The model `base` and the labelled dataset `colours`."""
    workspace = Workspace(tmp_path_factory.mktemp("seq2seq") / "ws").ensure()
    write_tiny_t5(workspace.models / "base")
    labelled_dataset(workspace.datasets / "colours", coloured(64), val=coloured(12))
    chat_dataset(workspace.datasets / "talk", [[Message("user", "hi"), Message("assistant", "ho")]])
    return workspace


def tune(workspace: Workspace, name: str, **settings: Any) -> RunDir:
    return runs.launch(workspace, "seq2seq", name, SMALL | settings, dataset="colours", checkpoint="base")


def run_in(workspace: Workspace, name: str, *, dataset: str = "colours", **settings: Any) -> Run:
    """The same, for this process."""
    return made_run(workspace, "seq2seq", name, SMALL | settings, dataset=dataset, checkpoint="base")


def job_in(workspace: Workspace, name: str, *, dataset: str = "colours", **settings: Any) -> Job:
    return prepare(run_in(workspace, name, dataset=dataset, **settings))


def test_records_of_every_kind_become_pairs() -> None:
    three = [Message("user", "a"), Message("assistant", "b"), Message("user", "c"), Message("assistant", "d")]
    wanted = [
        (LabelledRecord(task="classify", texts=["x"], label="y"), [Pair("p: x", "y")]),
        (LabelledRecord(task="pair", texts=["x", "y"], label="z"), [Pair("p: text1: x text2: y", "z")]),
        (
            LabelledRecord(task="choice", texts=["q", "r", "s"], label="1"),
            [Pair("p: question: q choices: (A) r (B) s", "s")],
        ),
        (LabelledRecord(task="tokens", texts=["in", "Rome"], labels=["O", "B-LOC"]), [Pair("p: in Rome", "O B-LOC")]),
        (ChatRecord(messages=three), [Pair("p: a", "b"), Pair("p: user: a\nassistant: b\nuser: c", "d")]),
        (ChatRecord(messages=[three[0], Message("assistant", "b", train=False)]), []),
        (PromptRecord(messages=three[:1], answer="b"), [Pair("p: a", "b")]),
        (PromptRecord(messages=three[:1]), []),
    ]
    for record, pairs in wanted:
        assert pairs_of(record, "p: ") == pairs
    with pytest.raises(UserError, match="labelled data"):
        pairs_of(TextRecord(text="x"), "")


def test_long_texts_are_cut_and_long_answers_left_out(tmp_path: Path) -> None:
    save_tokenizer(train_tokenizer([], "byte", 260, split_digits=False), tmp_path)
    tokenizer = TextTokenizer.load(tmp_path)
    given = [Pair("abcdef", "xy"), Pair("a", "xyzw"), Pair("a", ""), Pair("a", "x")]
    pairs = Pairs(iter(given), tokenizer, room=5, longest=3)
    assert (len(pairs), pairs.cut, pairs.refused) == (2, 1, 2)
    end = tokenizer.eos_id
    assert pairs.read(0) == [*tokenizer.encode("abcd"), end]
    batch = pairs.batch(np.array([0, 1]))
    assert batch.read.tolist() == [pairs.read(0), [*tokenizer.encode("a"), end, 0, 0, 0]]
    assert batch.lengths.tolist() == [5, 2]
    assert batch.targets.tolist() == [[*tokenizer.encode("xy"), end], [*tokenizer.encode("x"), end, IGNORED]]


def test_the_loss_of_a_step_is_the_mean_over_its_tokens_however_it_is_cut(workspace: Workspace) -> None:
    whole, cut = (job_in(workspace, f"cut{rows}", micro_batch=rows, batch_size=8) for rows in (8, 3))
    batch = whole.train.batch(whole.train.order(0, 8, 0))
    theirs = AutoModelForSeq2SeqLM.from_pretrained(workspace.models / "base", dtype=torch.float32).eval()
    mask = torch.arange(batch.read.shape[1]) < torch.from_numpy(batch.lengths)[:, None]
    wanted = theirs(torch.from_numpy(batch.read), attention_mask=mask.long(), labels=torch.from_numpy(batch.targets))
    first, again = whole.step(), cut.step()
    assert first[0] == pytest.approx(wanted.loss.item(), abs=1e-4)
    assert again[:2] == pytest.approx(first[:2], rel=1e-4)


@pytest.fixture(scope="module")
def learnt(workspace: Workspace) -> RunDir:
    return finish(tune(workspace, "learnt", steps=150, eval_every=75, checkpoint_every=150, sample_every=150))


def test_it_learns_to_write_the_label(learnt: RunDir) -> None:
    run = learnt
    rows = [json.loads(line) for line in run.metrics.read_bytes().splitlines()]
    assert [row["val/exact_match"] for row in rows if "val/exact_match" in row][-1] == 1.0
    folder = list_checkpoints(run)[-1].path
    assert prefixes_in(folder) == {"colours": "colours: "}
    sample = json.loads(run.samples.read_bytes().splitlines()[-1])
    assert sample["text"] in COLOURS.values()
    theirs = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = TextTokenizer.load(folder)
    asked = torch.tensor([[*tokenizer.encode("colours: snow"), tokenizer.eos_id]])
    written = theirs.generate(asked, max_new_tokens=16, do_sample=False)[0].tolist()
    assert tokenizer.decode(written) == "white"


def test_chat_by_command_puts_the_prefix_before_the_text(
    workspace: Workspace, learnt: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(workspace.root))
    assert command(["chat", "learnt", "--once", "so so sky", "--set", "temperature=0"]) == 0
    assert capsys.readouterr().out.strip() == "blue"


def test_a_t5_speaks_by_chance_but_by_its_seed(learnt: RunDir) -> None:
    speaker = open_speaker(list_checkpoints(learnt)[-1].path, "cpu")
    assert (speaker.kind, speaker.note) == ("chat", "Texts are given the prefix 'colours: '.")
    turns = [Turn("user", "nonsense"), Turn("assistant", "?"), Turn("user", "coal")]

    def said(**settings: Any) -> tuple[str, Done]:
        answer = speaker.start(Request(id=1, messages=turns), Chat(**settings))
        text = ""
        while answer.done is None:
            text += answer.step()
        return text, answer.done

    assert said(temperature=0)[0] == "black"
    wild = {"temperature": 50.0, "max_new_tokens": 12}
    assert said(seed=1, **wild)[0] == said(seed=1, **wild)[0] != said(seed=2, **wild)[0]
    text, done = said(temperature=0, stop=["ac"])
    assert (text, done.reason) == ("bl", "stop")
    with pytest.raises(UserError, match="user's turn"):
        speaker.start(Request(id=1, messages=turns[:2]), Chat())


def test_evaluation_tells_the_share_that_is_right(workspace: Workspace, learnt: RunDir) -> None:
    made = made_run(workspace, "evaluate", "score", {"device": "cpu"}, dataset="colours", checkpoint="learnt")
    assert evaluate.run(made)["records"] == 12
    row = read_evaluation(made.dir).rows[0]
    assert (row.checkpoint, row.shares["exact"].value) == ("learnt@150", 1.0)
    assert row.answers[0].prompt.startswith("colours: ")
    assert row.answers[0].text == row.answers[0].wanted


def test_killed_and_resumed_it_ends_with_the_bits_of_a_run_in_one_go(workspace: Workspace) -> None:
    whole = run_in(workspace, "whole", dropout=0.1)
    seq2seq.run(whole)
    cut = cut_off(tune(workspace, "cut", dropout=0.1))
    last = [list_checkpoints(run)[-1].path / "model.safetensors" for run in (whole.dir, cut)]
    assert last[0].read_bytes() == last[1].read_bytes()


def test_conversations_need_no_prefix_and_a_missing_validation_is_told(workspace: Workspace) -> None:
    job = job_in(workspace, "talk", dataset="talk")
    assert job.prefix == ""
    assert job.tokenizer.decode(job.train.read(0)) == "hi"
    assert "no validation part" in job.run.dir.events.read_text()
    assert job.evaluate(whole=True) == {}
