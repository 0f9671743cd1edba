"""GRPO on sums: from few examples to nearly all of them, by nothing but being told what is right.

Operands are written with two digits and sums with three, units first (7 + 85 is "07+85", answered "290"): so each digit
follows from those before it, and two layers need no more. Tuning stops before its examples are learnt by heart.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stages.data.templates import shipped
from stages.data.tokenizer import save_tokenizer, train_tokenizer
from stages.models.decoder import new_decoder
from stages.models.hf import save_weights
from stages.store.architecture import ModelConfig
from stages.store.checkpoints import Best, Lineage, best_checkpoint, write_checkpoint
from stages.store.records import Message
from stages.store.rundir import RunDir
from stages.store.workspace import Workspace
from tests.stages.data.chats import chat_dataset
from tests.stages.helpers import finish
from tests.stages.policy_helpers import prompt_dataset
from tests.stages.resuming import rows
from workbench import runs

SHOWN, HELD_OUT = 300, 2_000
"""Sums that tuning shows, and pairs of operands (of 10,000) that nothing shows."""

SHARED = {"device": "cpu", "precision": "fp32", "probes": False, "sample_every": 0}
TUNING = {"steps": 150, "batch_size": 24, "lr": 1e-3, "eval_every": 200, "checkpoint_every": 600, **SHARED}
POLICY = {
    "steps": 240,
    "batch_size": 32,
    "group": 16,
    "minibatches": 4,
    "max_new_tokens": 5,
    "reward": "exact",
    "lr": 4e-4,
    "min_lr_ratio": 0.3,
    "beta": 0.0,
    "normalise": "token",
    "clip_high": 0.28,
    "eval_every": 20,
    "eval_prompts": HELD_OUT,
    "checkpoint_every": 200,
    "max_kl": 1e3,
    "max_length_ratio": 5.0,
    **SHARED,
}
"""The verifier cannot be fooled, so nothing holds the policy near where it began."""


def sums_workspace(folder: Path) -> Workspace:
    """A fresh model of half the tiny preset's layers, 300 sums as conversations, and all other pairs as prompts."""
    workspace = Workspace(folder / "ws").ensure()

    def fill(final: Path) -> None:
        config = ModelConfig(layers=2, heads=4, width=128, context=32, vocab_size=260)
        save_weights(new_decoder(config, 0), final)
        save_tokenizer(train_tokenizer([], "byte", 260, split_digits=False), final)
        (final / "chat_template.jinja").write_text(shipped()["raw"])
        (final / "workbench.json").write_bytes(
            msgspec.json.encode(Lineage(stage="pretrain", run="r", name="b", step=0))
        )

    write_checkpoint(workspace.models / "base", fill)
    pairs = [(a, b) for a in range(100) for b in range(100)]
    random.Random(0).shuffle(pairs)
    asked = [(f"{a:02}+{b:02}", f"{a + b:03}"[::-1]) for a, b in pairs]
    held_out, train = asked[:HELD_OUT], asked[HELD_OUT:]
    chats = [[Message("user", question), Message("assistant", answer)] for question, answer in train[:SHOWN]]
    chat_dataset(workspace.datasets / "shown", chats)
    prompt_dataset(workspace.datasets / "asked", train, val=held_out)
    return workspace


def exact(run: RunDir) -> list[tuple[int, float]]:
    """Share of held-out sums that are right, by step."""
    return [(row["step"], row["val/reward"]) for row in rows(run.metrics) if "val/reward" in row]


@pytest.mark.bench
def test_sums_are_learnt_by_being_told_what_is_right(tmp_path: Path) -> None:
    workspace = sums_workspace(tmp_path)
    launch: Any = runs.launch
    tuned = launch(workspace, "sft", "tuned", TUNING, dataset="shown", checkpoint="base")
    finish(tuned, seconds=3_600)
    policy = finish(launch(workspace, "grpo", "policy", POLICY, dataset="asked", checkpoint="tuned"), seconds=7_200)
    curve = exact(policy)
    print("held-out sums right, by step: " + ", ".join(f"{step}: {share:.1%}" for step, share in curve))
    assert curve[0][1] <= 0.4
    best = best_checkpoint(policy, Best("val/reward", highest=True))
    lineage = best.lineage() if best else None
    assert lineage is not None and lineage.metrics["val/reward"] >= 0.9
