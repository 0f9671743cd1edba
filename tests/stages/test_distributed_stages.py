"""Every stage that several processes can train: two make the updates that one makes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stages.store.checkpoints import list_checkpoints
from stages.store.rundir import RunDir
from stages.store.specs import on_several_gpus, spec_of
from stages.store.workspace import Workspace
from tests.stages import classify_helpers, policy_helpers, reward_helpers, sft_helpers, test_policy, test_seq2seq
from tests.stages.data.chats import chat_dataset
from tests.stages.helpers import TINY, build_small_world, finish, pretrain
from tests.stages.sft_helpers import chat_workspace, sums
from tests.stages.side_by_side import do_side_by_side
from tests.stages.test_distributed import break_off, by_srun, elsewhere
from tests.stages.test_distributed import rows as rows_by_step
from tests.stages.test_seq2seq import coloured, labelled_dataset, write_tiny_t5
from workbench import runs

__all__ = ["by_srun"]

SAME = {"steps": 6, "eval_every": 3, "checkpoint_every": 6, "dropout": 0.0, "micro_batch": 1}
"""Random numbers are a process's own, so the stages are compared without dropout."""

Train = Callable[..., RunDir]


def text(folder: Path) -> tuple[Workspace, Train]:
    return build_small_world(folder), pretrain


def texts_for(stage: str) -> Callable[[Path], tuple[Workspace, Train]]:
    """A stage that pre-trains with a tokenizer that has masks and sentinels."""

    def make(folder: Path) -> tuple[Workspace, Train]:
        def train(workspace: Workspace, name: str, **settings: Any) -> RunDir:
            wanted = TINY | {"preset": f"tiny-{stage}", "precision": "fp32"} | settings
            return runs.launch(workspace, stage, name, wanted, dataset="rhymes", tokenizer="words")

        workspace, wanted = build_small_world(folder), {"type": "wordpiece", "vocab_size": 300, "sentinels": 20}
        finish(runs.launch(workspace, "tokenizer", "words", wanted, dataset="rhymes"))
        return workspace, train

    return make


def recurrent(folder: Path) -> tuple[Workspace, Train]:
    def train(workspace: Workspace, name: str, **settings: Any) -> RunDir:
        wanted = TINY | {"memory": 16, "precision": "fp32"} | settings
        return runs.launch(workspace, "transformer_xl", name, wanted, dataset="rhymes", tokenizer="bytes")

    return build_small_world(folder), train


def conversations(folder: Path) -> tuple[Workspace, Train]:
    return chat_workspace(folder), sft_helpers.tune


def teacher(folder: Path) -> tuple[Workspace, Train]:
    def train(workspace: Workspace, name: str, **settings: Any) -> RunDir:
        wanted = sft_helpers.SMALL | settings
        return runs.launch(
            workspace, "distill", name, wanted, dataset="sums", checkpoint="base", extra={"teacher": "base"}
        )

    return chat_workspace(folder), train


def preferences(folder: Path) -> tuple[Workspace, Train]:
    return reward_helpers.reward_workspace(folder), reward_helpers.train


def policy(folder: Path) -> tuple[Workspace, Train]:
    def train(workspace: Workspace, name: str, **settings: Any) -> RunDir:
        wanted = reward_helpers.SMALL | {"probes": False, "sample_tokens": 8, "sft_term": 0.5} | settings
        return runs.launch(workspace, "dpo", name, wanted, dataset="likes", checkpoint="base")

    return reward_helpers.reward_workspace(folder), train


def labels(folder: Path) -> tuple[Workspace, Train]:
    def train(workspace: Workspace, name: str, **settings: Any) -> RunDir:
        wanted = classify_helpers.SMALL | settings
        return runs.launch(workspace, "classify", name, wanted, dataset="classify", checkpoint="decoder")

    return classify_helpers.label_workspace(folder), train


def answers(folder: Path) -> tuple[Workspace, Train]:
    workspace = Workspace(folder / "ws").ensure()
    write_tiny_t5(workspace.models / "base")
    labelled_dataset(workspace.datasets / "colours", coloured(64), val=coloured(12))
    chat_dataset(workspace.datasets / "talk", sums(4))
    return workspace, test_seq2seq.tune


def prompts(stage: str) -> Callable[[Path], tuple[Workspace, Train]]:
    def make(folder: Path) -> tuple[Workspace, Train]:
        def train(workspace: Workspace, name: str, **settings: Any) -> RunDir:
            wanted = policy_helpers.SMALL | test_policy.MORE[stage] | settings
            return runs.launch(workspace, stage, name, wanted, dataset="sums", checkpoint="base")

        return policy_helpers.policy_workspace(folder), train

    return make


STAGES: dict[str, tuple[Callable[[Path], tuple[Workspace, Train]], dict[str, Any]]] = {
    "pretrain": (text, {"precision": "fp32"}),
    "bert": (texts_for("bert"), {"whole_words": True}),
    "t5": (texts_for("t5"), {}),
    "transformer_xl": (recurrent, {}),
    "sft": (conversations, {}),
    "sft by adapters": (conversations, {"method": "lora", "lora_rank": 4}),
    "distill": (teacher, {"alpha": 0.5}),
    "reward": (preferences, {}),
    "dpo": (policy, {}),
    "classify": (labels, {}),
    "seq2seq": (answers, {}),
    "grpo": (prompts("grpo"), {"resample": 2, "normalise": "token"}),
    "ppo": (prompts("ppo"), {}),
    "ppo by adapters": (prompts("ppo"), {"method": "lora", "lora_rank": 4}),
    "ppo with a value head": (prompts("ppo"), {"value": "head"}),
}


def rows(run: RunDir) -> list[dict[str, float]]:
    """All that was logged, times and rates left out."""
    kept = [json.loads(line) for line in run.metrics.read_bytes().splitlines()]
    return [{key: value for key, value in row.items() if key not in ("time", "tokens_per_s", "mfu")} for row in kept]


def held(run: RunDir) -> str:
    """What each process of the run held of the model."""
    events = map(json.loads, run.events.read_bytes().splitlines())
    return str(next(event["sharding"] for event in events if event["event"] == "model"))


@pytest.mark.soak
@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_train_as_one(stage: str, tmp_path: Path, sharding: str) -> None:
    make, settings = STAGES[stage]
    workspace, train = make(tmp_path)
    fields = set(train(workspace, "asked", steps=1).spec().settings)
    wanted = {key: value for key, value in (SAME | settings).items() if key in fields}
    one = finish(train(workspace, "one", **wanted))
    two = finish(train(workspace, "two", gpus=2, sharding=sharding, **wanted))
    assert len(rows(one)) == len(rows(two))
    for mine, theirs in zip(rows(one), rows(two), strict=True):
        assert theirs == pytest.approx(mine, rel=1e-5, abs=1e-5)
    assert held(two) == sharding
    assert list_checkpoints(two)[-1].step == 6
    assert (list_checkpoints(two)[-1].path / "resume" / "index.json").exists()


SHORT = {"steps": 3, "eval_every": 3, "eval_prompts": 3, "checkpoint_every": 3, "sample_every": 3, "warmup": 0}
"""Three updates, and each way in which the whole model is needed."""
IN_PIECES = STAGES.keys() - {"pretrain", "sft by adapters", "ppo by adapters", "ppo with a value head"}
QUICK = {"bert", "classify", "dpo", "ppo"}
"""One of each way: a model alone, one with a head, one and its reference, and four of which two learn."""


@pytest.mark.parametrize(
    "stages",
    [pytest.param(QUICK, id="a few"), pytest.param(IN_PIECES - QUICK, id="the others", marks=pytest.mark.soak)],
)
def test_models_in_pieces_learn_what_whole_ones_learn(
    stages: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By two processes, held against one; on disk they are the same."""
    pairs: dict[str, tuple[RunDir, RunDir]] = {}
    for stage in stages:
        make, settings = STAGES[stage]
        (folder := tmp_path / stage).mkdir()
        workspace, train = make(folder)
        with monkeypatch.context() as patch:
            patch.setattr(runs, "spawn", lambda *_: None)  # they have no worker of their own
            fields = spec_of(stage).__struct_fields__
            wanted = {key: value for key, value in (SAME | SHORT | settings).items() if key in fields}
            one, two = train(workspace, "one", **wanted), train(workspace, "two", gpus=2, sharding="fsdp", **wanted)
        pairs[stage] = one, two
    do_side_by_side([run for pair in pairs.values() for run in pair], 2, tmp_path / "log")
    for stage, (one, two) in pairs.items():
        assert held(two) == "fsdp", stage
        for mine, theirs in zip(rows(one), rows(two), strict=True):
            assert theirs == pytest.approx(mine, rel=1e-5, abs=1e-5), stage
        last, theirs = (list_checkpoints(run)[-1].path for run in (one, two))
        for file in sorted(last.rglob("model.safetensors")):
            weights, whole = load_file(theirs / file.relative_to(last)), load_file(file)
            assert weights.keys() == whole.keys()
            for name, tensor in whole.items():
                torch.testing.assert_close(weights[name], tensor, rtol=0, atol=1e-4, msg=f"{stage}: {name}")


LONG = {"steps": 30, "eval_every": 30, "checkpoint_every": 3, "sample_every": 30, "batch_size": 6, "minibatches": 1}
"""It saves so often that there is time to break it off, and two or three processes share a step evenly."""


@pytest.mark.soak
@pytest.mark.parametrize("stage", sorted(IN_PIECES))
def test_models_in_pieces_go_on_bit_for_bit_on_as_many_processes_and_close_on_others(
    stage: str, tmp_path: Path, by_srun: Path
) -> None:
    make, settings = STAGES[stage]
    (folder := tmp_path / "made").mkdir()
    workspace, train = make(folder)
    fields = spec_of(stage).__struct_fields__
    wanted = {key: value for key, value in (SAME | LONG | settings).items() if key in fields}
    one = finish(train(workspace, "one", **wanted))
    whole = finish(train(workspace, "whole", gpus=2, sharding="fsdp", **wanted))
    run = train(workspace, "broken", gpus=2, sharding="fsdp", **wanted)
    break_off(run, 1)
    for processes in (1, 3):
        copy = elsewhere(run, tmp_path / f"copy-{processes}")
        runs.start(copy, gpus=processes)
        same(finish(copy), one)
    runs.start(run)
    assert bits(finish(run)) == bits(whole)
    same(run, one)


def bits(run: RunDir) -> dict[str, bytes]:
    """Weights and all that resuming needs of the last checkpoint."""
    last = list_checkpoints(run)[-1].path
    files = [*last.rglob("*.safetensors"), *(last / "resume").iterdir()]
    return {str(path.relative_to(last)): path.read_bytes() for path in files}


def same(run: RunDir, other: RunDir) -> None:
    """What counts of all that was logged. Roundings add up in a gradient's norm."""
    mine, theirs = rows_by_step(run), rows_by_step(other)
    assert mine.keys() == theirs.keys()
    for step, row in theirs.items():
        for key in row.keys() - {"time", "tokens_per_s", "mfu"}:
            close = 1e-3 if key == "grad_norm" else 1e-5
            assert mine[step][key] == pytest.approx(row[key], rel=close, abs=close), (step, key)


def test_the_stages_that_are_tried_are_those_that_say_they_can() -> None:
    assert {stage.split()[0] for stage in STAGES} == set(on_several_gpus())
