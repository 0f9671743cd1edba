"""Conversations that people have, by commands: built, masked, learnt for some hundred steps, resumed bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from stages.data.conversation_shards import conversation_shards
from stages.data.conversations import choose_template
from stages.data.records import read_records
from stages.data.tokenizer import TextTokenizer
from stages.store.checkpoints import list_checkpoints
from stages.store.datasets import find_dataset
from stages.store.records import ChatRecord
from stages.store.rundir import RunDir, find_run
from stages.store.workspace import Workspace
from tests.e2e.terminal import environment, workbench
from tests.stages.helpers import wait_until

DATA = Path(os.environ.get("WORKBENCH_TEST_DATA", ""))

pytestmark = [
    pytest.mark.bench,
    pytest.mark.skipif(not DATA.is_dir() or not DATA.name, reason="WORKBENCH_TEST_DATA is not set"),
]

STEPS = int(os.environ.get("REAL_CHATS_STEPS", "300"))
"""Of instruction tuning; half as many pre-train the base."""

CONTEXT = 384

FILES = {"gsm8k": "gsm8k/train_2000.jsonl", "self_instruct": "self_instruct/seed_tasks.jsonl"}


@pytest.mark.parametrize("name", FILES)
def test_by_commands(tmp_path: Path, name: str) -> None:
    variables = os.environ | environment(tmp_path)

    def command(*arguments: str) -> None:
        done = subprocess.run(
            workbench(*arguments), cwd=tmp_path, env=variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    command("data", "build", str(DATA / FILES[name]), "--name", "chats")
    command("data", "build", str(DATA / "tinyshakespeare"), "--name", "plays")
    command("tokenizer", "train", "--data", "chats", "--vocab-size", "1024", "--name", "bpe")
    base = [f"steps={STEPS // 2}", "warmup=20", f"context={CONTEXT}", "batch_size=4", "checkpoint_every=100000"]
    command("train", "pretrain", "--data", "plays", "--tokenizer", "bpe", "--name", "base", *_set(base))

    workspace = Workspace(Path(variables["WORKBENCH_HOME"]))
    tuned = [f"steps={STEPS}", "batch_size=4", "checkpoint_every=50", "dropout=0.1", "probes=false"]
    tuned.append(f"eval_every={STEPS // 6}")
    options = ["--data", "chats", "--from", "base", *_set(tuned)]
    command("train", "sft", *options, "--name", "whole")
    command("train", "sft", *options, "--name", "broken", "--detach")
    whole, broken = find_run(workspace, "whole"), find_run(workspace, "broken")
    wait_until(lambda: bool(list_checkpoints(broken)), seconds=1_200, what="a checkpoint")
    pid = broken.state().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not broken.alive(), what="death")
    killed_at = broken.state().step
    assert 0 < list_checkpoints(broken)[-1].step < STEPS
    command("runs", "resume", "broken")
    wait_until(lambda: broken.status() == "finished", seconds=1_200, what="the end")
    for part in ("model.safetensors", "resume/optimizer.safetensors"):
        one, other = (list_checkpoints(run)[-1].path / part for run in (whole, broken))
        assert one.read_bytes() == other.read_bytes()

    losses = validation(whole)
    print(f"\n{name}: validation loss {' → '.join(f'{loss:.3f}' for loss in losses)} nats in {STEPS} steps;")
    print(f"killed near step {killed_at}, resumed, same bits; {whole.state().result}")
    assert losses == validation(broken) and losses[-1] < losses[0]
    check_masks(workspace, list_checkpoints(find_run(workspace, "base"))[-1].path)


def check_masks(workspace: Workspace, folder: Path) -> None:
    """What is trained of each record is what its assistant says, and the end of the turn."""
    dataset, tokenizer = find_dataset(workspace, "chats"), TextTokenizer.load(folder)
    data = conversation_shards(dataset, folder, template=choose_template(folder, "auto"), turns="all", context=CONTEXT)
    said, split = [], data.train
    for number in range(len(split)):
        place = slice(*split.starts[number : number + 2])
        said.append(tokenizer.decode(split.ids[place][split.trained[place] != 0].tolist()))
    records = [record for record in read_records(dataset, "train") if isinstance(record, ChatRecord)]
    wanted = {"".join(m.content for m in record.messages if m.role == "assistant") for record in records}
    assert len(said) > 0.6 * len(records) and all(text in wanted for text in said)


def validation(run: RunDir) -> list[float]:
    """The validation losses that count, in order: of rows that were logged twice, the later ones."""
    rows: dict[int, Any] = {}
    for row in map(json.loads, run.metrics.read_text().splitlines()):
        if "val/loss" in row:
            rows[row["step"]] = row["val/loss"]
    return [rows[step] for step in sorted(rows)]


def _set(pairs: list[str]) -> list[str]:
    return [part for pair in pairs for part in ("--set", pair)]
