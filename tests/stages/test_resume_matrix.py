"""The whole matrix: every training stage, in fp32 and in bf16, broken off at every kind of moment and resumed.

What it ends with must be what a run in one go ends with: every tensor of its last checkpoint, optimisers and all, and
every loss on the way. That each part of the state is needed is shown stage by stage beside this, where one is withheld.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from stages.store.checkpoints import list_checkpoints
from stages.store.rundir import RunDir
from stages.store.specs import TRAINING, spec_of
from stages.store.workspace import Workspace
from tests.stages import classify_helpers, policy_helpers, reward_helpers, sft_helpers, test_policy, test_seq2seq
from tests.stages.helpers import TINY, build_small_world, finish, wait_until
from tests.stages.moments import MOMENTS, VARIABLE
from tests.warm_workers import warm_workers
from workbench import runs

STEPS, BREAK = 30, 9
"""Twenty steps and more are compared after the break, which comes a step after a checkpoint."""
COMMON = {
    "steps": STEPS,
    "checkpoint_every": 4,
    "eval_every": 15,
    "sample_every": 15,
    "micro_batch": 2,
    "batch_size": 4,
    "dropout": 0.1,
}
OWN = {"ppo": {"batch_size": 8}}  # of which a minibatch is half, and that has two parts


class Stage(NamedTuple):
    workspace: Callable[[Path], Workspace]
    settings: dict[str, Any]
    parents: dict[str, Any]


def texts(folder: Path) -> Workspace:
    """The dataset `rhymes`, and the tokenizers `bytes`, `pieces` and `spans`."""
    workspace = build_small_world(folder)
    for name, settings in (("pieces", {"type": "wordpiece"}), ("spans", {"type": "bpe", "sentinels": 20})):
        finish(runs.launch(workspace, "tokenizer", name, {"vocab_size": 400, **settings}, dataset="rhymes"))
    return workspace


def answers(folder: Path) -> Workspace:
    workspace = Workspace(folder / "ws").ensure()
    test_seq2seq.write_tiny_t5(workspace.models / "base")
    train = test_seq2seq.coloured(64)
    test_seq2seq.labelled_dataset(workspace.datasets / "colours", train, val=test_seq2seq.coloured(12))
    return workspace


def on_text(preset: str, tokenizer: str = "bytes", **settings: Any) -> Stage:
    return Stage(texts, TINY | {"preset": preset} | settings, {"dataset": "rhymes", "tokenizer": tokenizer})


def tuned(workspace: Callable[[Path], Workspace], settings: dict[str, Any], dataset: str, **parents: Any) -> Stage:
    return Stage(workspace, settings, {"dataset": dataset, "checkpoint": "base", **parents})


POLICY = policy_helpers.SMALL | {"max_new_tokens": 4}
STAGES: dict[str, Stage] = {
    "pretrain": on_text("tiny"),
    "bert": on_text("tiny-bert", "pieces", context=24),
    "t5": on_text("tiny-t5", "spans"),
    "transformer_xl": on_text("tiny-transformer-xl", memory=16),
    "sft": tuned(sft_helpers.chat_workspace, sft_helpers.SMALL, "sums"),
    "seq2seq": tuned(answers, test_seq2seq.SMALL, "colours"),
    "classify": tuned(classify_helpers.label_workspace, classify_helpers.SMALL, "classify", checkpoint="decoder"),
    "distill": tuned(sft_helpers.chat_workspace, sft_helpers.SMALL, "sums", extra={"teacher": "base"}),
    "reward": tuned(reward_helpers.reward_workspace, reward_helpers.SMALL, "likes"),
    "dpo": tuned(reward_helpers.reward_workspace, reward_helpers.SMALL | {"probes": False}, "likes"),
    "grpo": tuned(policy_helpers.policy_workspace, POLICY | test_policy.MORE["grpo"], "sums"),
    "ppo": tuned(policy_helpers.policy_workspace, POLICY | test_policy.MORE["ppo"], "sums"),
}


@pytest.fixture(scope="module", autouse=True)
def _warm() -> Iterator[None]:
    with warm_workers():
        yield


class Whole(NamedTuple):
    """A workspace, and the run in it that nothing broke off."""

    workspace: Workspace
    run: RunDir


@pytest.fixture(scope="module")
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    stage, precision = request.param
    workspace = STAGES[stage].workspace(tmp_path_factory.mktemp(stage))
    return Whole(workspace, finish(train(workspace, stage, precision, "whole")))


def train(workspace: Workspace, stage: str, precision: str, name: str) -> RunDir:
    known = {field.name for field in msgspec.structs.fields(spec_of(stage))}
    wanted = STAGES[stage].settings | COMMON | OWN.get(stage, {}) | {"precision": precision}
    kept = {key: value for key, value in wanted.items() if key in known}
    return runs.launch(workspace, stage, name, kept, **STAGES[stage].parents)


def tensors(run: RunDir) -> dict[str, bytes]:
    """Files of tensors of the last checkpoint."""
    last = list_checkpoints(run)[-1]
    assert last.step == STEPS
    return {str(file.relative_to(last.path)): file.read_bytes() for file in last.path.rglob("*.safetensors")}


def losses(run: RunDir) -> dict[int, tuple[float, float | None]]:
    """Those of training and validation by step, those that a resumed run made again once."""
    kept: dict[int, tuple[float, float | None]] = {}
    for line in run.metrics.read_bytes().splitlines():
        row = json.loads(line)
        if "rewind_to" in row:
            kept = {step: old for step, old in kept.items() if step <= row["rewind_to"]}
        elif "train/loss" in row:  # a pause adds a row of validation alone
            kept[row["step"]] = (row["train/loss"], row.get("val/loss"))
    return kept


@pytest.mark.soak
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(
    "whole", [(stage, precision) for stage in STAGES for precision in ("fp32", "bf16")], indirect=True, ids="-".join
)
def test_a_run_broken_off_and_resumed_ends_with_the_same_bits(
    whole: Whole, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = whole.run.spec()
    monkeypatch.setenv(VARIABLE, f"{moment}:{BREAK}")
    broken = train(whole.workspace, spec.stage, spec.settings["precision"], moment.replace(" ", "-"))
    wait_until(lambda: not broken.alive(), seconds=600, what="the break")
    assert broken.status() == ("paused" if moment == "paused" else "lost"), broken.log.read_text()
    assert 0 < list_checkpoints(broken)[-1].step < BREAK + 4
    monkeypatch.delenv(VARIABLE)
    runs.start(broken)
    finish(broken, seconds=600)
    assert losses(broken) == losses(whole.run) and max(losses(broken)) == STEPS
    assert tensors(broken) == tensors(whole.run) and len(tensors(broken)) > 1
    assert broken.state().result == whole.run.state().result


def test_no_training_stage_is_forgotten() -> None:
    assert STAGES.keys() == set(TRAINING)
