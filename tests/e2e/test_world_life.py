"""The starter world's life by commands: pre-train, tune, and count held-out exact answers, family by family."""

from __future__ import annotations

import os
import subprocess
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from stages.data.conversations import Masker
from stages.data.world import families, is_correct, questions
from stages.generate import Sampling, generate
from stages.models.opening import open_decoder
from stages.store.checkpoints import resolve_checkpoint
from stages.store.records import Message
from stages.store.workspace import Workspace
from tests.e2e.terminal import environment, workbench

pytestmark = pytest.mark.bench

LONGEST = 48
"""Tokens of an answer, at most."""


WANTED = 0.95
"""Least share of exact answers over all learnable families together, at every seed."""


@pytest.mark.parametrize("seed", range(5), ids=lambda seed: f"seed-{seed}")
def test_by_commands(tmp_path: Path, seed: int) -> None:
    """About twenty minutes a seed on a core of its own; `-k seed-3` takes one of them.

    WORLD_PRETRAIN_STEPS and WORLD_SFT_EPOCHS choose other lengths, to see that all of it works.
    """
    variables = environment(tmp_path)
    del variables["OMP_NUM_THREADS"]
    steps = os.environ.get("WORLD_PRETRAIN_STEPS", "2000")
    epochs = os.environ.get("WORLD_SFT_EPOCHS", "8")
    began = time.monotonic()

    def run(*arguments: str) -> None:
        done = subprocess.run(
            workbench(*arguments), cwd=tmp_path, env=os.environ | variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    run("data", "build", "starter:world", "--name", "world")
    run("data", "build", "starter:world-chat", "--name", "world-chat")
    run("tokenizer", "train", "--data", "world", "--type", "bpe", "--vocab-size", "512", "--name", "world-bpe")
    base = ["--data", "world", "--tokenizer", "world-bpe", "--name", "tiny", "--set", f"steps={steps}"]
    run("train", "pretrain", *base, "--set", f"seed={seed}")
    run("train", "sft", "--data", "world-chat", "--from", "tiny", "--name", "tuned",
        "--set", f"epochs={epochs}", "--set", f"seed={seed}")  # fmt: skip
    shares = score(resolve_checkpoint(Workspace(Path(variables["WORKBENCH_HOME"])), "tuned").path)
    print(f"\nseed {seed}, {steps} steps and {epochs} epochs")
    report(shares, time.monotonic() - began)
    learnable = [right for family in families() if family.learnable for right in shares[family.name]]
    print(f"all learnable  {sum(learnable):>5,} of {len(learnable):>5,}  {sum(learnable) / len(learnable):6.1%}")
    assert sum(learnable) / len(learnable) >= WANTED


def score(folder: Path) -> dict[str, list[bool]]:
    """For each family, which held-out questions the model answers right, each token the likeliest."""
    model, records = open_decoder(folder), list(questions("eval"))
    with Masker(folder) as masker:
        prompts = [masker.prompt([Message("user", record["messages"][0]["content"])]) for record in records]
        stops = tuple({masker.encoder.text.eos_id, masker.end_of_turn() or 0})
        decode = masker.encoder.text.decode
    answers = generate(model, prompts, Sampling(temperature=0.0, max_new_tokens=LONGEST, stop_ids=stops), 64)
    found: dict[str, list[bool]] = defaultdict(list)
    for record, answer in zip(records, answers, strict=True):
        found[_family(record)].append(is_correct(record, decode(answer)))
    return found


def report(shares: Mapping[str, list[bool]], seconds: float) -> None:
    """A line a family: what a person who runs this wants to see."""
    for family in families():
        right = shares[family.name]
        note = "" if family.learnable else " (not learnable, in no target)"
        print(f"{family.name:<14} {sum(right):>5,} of {len(right):>5,}  {sum(right) / len(right):6.1%}{note}")
    print(f"in {seconds:,.0f} s")


def _family(record: Mapping[str, Any]) -> str:
    return str(record["meta"]["family"])
