"""Best-of-n: what is kept is what scored best, a resumed run writes the same dataset, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stages import best_of
from stages.best_of import FILE
from stages.data.records import read_records
from stages.measuring.scorer import Scorer
from stages.run import Run
from stages.store.checkpoints import resolve_checkpoint
from stages.store.datasets import find_dataset
from stages.store.errors import UserError
from stages.store.records import ChatRecord, PreferenceRecord
from stages.store.rundir import Parent, RunSpec, create_run
from stages.store.workspace import Workspace
from tests.stages.data.chats import chat_dataset
from tests.stages.helpers import copy_of, finish
from tests.stages.reward_helpers import reward_workspace, train
from tests.stages.sft_helpers import job_in, sums
from tests.tiny_model import write_tiny_judge

SMALL = {
    "n": 4,
    "reward": "length",
    "max_new_tokens": 12,
    "max_prompts": 6,
    "slots": 16,
    "threads": 1,
    "device": "cpu",
    "temperature": 1.0,
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """`talker` has learnt to answer briefly; `likes` are prompts to it."""
    workspace = reward_workspace(tmp_path_factory.mktemp("best"))
    chat_dataset(workspace.datasets / "sums", sums(120), val=sums(24, seed=1))
    job = job_in(workspace, "talker", steps=60, lr=1e-2)
    for _ in range(60):
        job.step()
    job.course.save(job)
    return workspace


@pytest.fixture
def workspace(original: Workspace, tmp_path: Path) -> Workspace:
    return copy_of(original, tmp_path)


def drawn(workspace: Workspace, name: str, *, judge: str | None = None, **settings: Any) -> tuple[Run, dict[str, Any]]:
    """Best-of-n in this process: its run and what it told."""
    parents = {"dataset": Parent("likes", find_dataset(workspace, "likes").info.digest)}
    for role, checkpoint in (("checkpoint", "talker"), ("reward", judge)):
        if checkpoint:
            found = resolve_checkpoint(workspace, checkpoint)
            parents[role] = Parent(str(found.path), found.digest())
    spec = RunSpec(stage="best_of", name=name, settings=SMALL | settings, parents=parents, threads=1)
    run = Run(create_run(workspace, spec).path)
    return run, best_of.run(run)


def test_the_best_answers_make_conversations(workspace: Workspace) -> None:
    run, told = drawn(workspace, "best")
    dataset = find_dataset(workspace, "best")
    records = [record for record in read_records(dataset, "train") if isinstance(record, ChatRecord)]
    lines = {line.place: line for line in best_of.scored(run) if line.split == "train" and line.scores}
    assert dataset.info.kind == "chat" and 0 < len(records) == len(lines) <= 6
    for record, (_, line) in zip(records, sorted(lines.items()), strict=True):
        assert record.messages[-1].role == "assistant"
        assert record.messages[-1].content == line.texts[line.scores.index(max(line.scores))]
        assert record.meta["score"] == max(line.scores)
    assert told["mean_best"] > told["mean_score"]


def test_a_ranking_holds_different_answers_by_score(workspace: Workspace) -> None:
    drawn(workspace, "ranked", keep="ranking", n=8)
    dataset = find_dataset(workspace, "ranked")
    records = [record for record in read_records(dataset, "train") if isinstance(record, PreferenceRecord)]
    assert dataset.info.kind == "preference" and records
    for record in records:
        assert record.annotator == "rule:length" and record.scores is not None
        assert len(set(record.completions)) == len(record.completions) and min(record.ranks) == 1
        by_rank = sorted(zip(record.ranks, record.scores, strict=True))
        assert [score for _, score in by_rank] == sorted(record.scores, reverse=True)


def test_a_run_that_goes_on_draws_what_is_missing_and_the_same(workspace: Workspace) -> None:
    run, _ = drawn(workspace, "whole")
    whole = find_dataset(workspace, "whole")
    lines = (run.dir.path / FILE).read_bytes().splitlines(keepends=True)
    (run.dir.path / FILE).write_bytes(b"".join(lines[1:3]) + lines[5][:10])
    workspace.datasets.joinpath("whole").rename(workspace.root / "aside")
    best_of.run(Run(run.dir.path))
    assert find_dataset(workspace, "whole").info.digest == whole.info.digest


def test_a_run_that_died_behind_its_dataset_goes_on_to_its_end(workspace: Workspace) -> None:
    run, told = drawn(workspace, "whole")
    digest = find_dataset(workspace, "whole").info.digest
    assert best_of.run(Run(run.dir.path)) == told
    assert find_dataset(workspace, "whole").info.digest == digest
    with pytest.raises(UserError, match="already a dataset 'likes'"):
        drawn(workspace, "likes")


def test_a_reward_model_may_judge(workspace: Workspace) -> None:
    finish(train(workspace, "judge", steps=4))
    drawn(workspace, "judged", judge="judge", reward="auto", keep="ranking", n=8)
    (record, *_) = read_records(find_dataset(workspace, "judged"), "train")
    assert isinstance(record, PreferenceRecord) and record.annotator == "model:judge@4" and record.scores
    with Scorer(resolve_checkpoint(workspace, "judge").path) as scorer:
        alone = [scorer.score(record.messages, text).normal for text in record.completions]
    assert record.scores == pytest.approx(alone, abs=1e-4)


def test_answers_that_all_score_too_low_are_refused(workspace: Workspace) -> None:
    with pytest.raises(UserError, match="No prompt is left"):
        drawn(workspace, "none", min_score=2.0)


def test_a_least_score_of_0_leaves_out_what_scores_less(workspace: Workspace) -> None:
    run, _ = drawn(workspace, "positive", n=1, max_prompts=24, reward_length=1, min_score=0.0)
    best = [max(one.scores) for one in best_of.scored(run) if one.split == "train" and one.scores]
    kept = [record.meta["score"] for record in read_records(find_dataset(workspace, "positive"), "train")]
    assert min(best) < 0 and kept == [score for score in best if score >= 0]


def test_a_reward_model_that_sees_too_little_is_refused_before_anything_is_drawn(workspace: Workspace) -> None:
    write_tiny_judge(workspace.models / "short", context=12)
    with pytest.raises(UserError, match="The reward model sees 12 tokens"):
        drawn(workspace, "judged", judge="short", reward="auto")
