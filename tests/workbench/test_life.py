"""What is done, running and next, derived from what is in a workspace."""

from __future__ import annotations

import os
import shutil

import msgspec

from stages.store.labels import Candidate, open_labels
from stages.store.labels import Prompt as LabelPrompt
from stages.store.records import Message
from stages.store.rundir import Parent, RunDir, RunError
from stages.store.workspace import Workspace
from tests.workbench.conftest import (
    CREATED,
    DATASET_DIGEST,
    TOKENIZER_DIGEST,
    add_checkpoint,
    add_dataset,
    add_run,
    add_tokenizer,
)
from workbench.board.survey import Survey
from workbench.life.steps import FREEZE, Life, lives

PARENTS = {"dataset": Parent("world", DATASET_DIGEST), "tokenizer": Parent("world-bpe", TOKENIZER_DIGEST)}


def life(workspace: Workspace) -> Life:
    return lives(Survey(workspace).look())[0]


def states(workspace: Workspace) -> dict[str, str]:
    return {step.key: step.state for step in life(workspace).steps}


def test_nothing_there_begins_with_data(workspace: Workspace) -> None:
    found = life(workspace)
    assert found.next.key == "data" and found.next.stage == "build"
    assert states(workspace)["tokenizer"] == "later" and states(workspace)["chat"] == "later"


def tuned_world(workspace: Workspace, sources: list[str]) -> RunDir:
    """A world whose model has been tuned; the tuning run."""
    add_dataset(workspace, "world", sources=sources)
    add_tokenizer(workspace, "world-bpe", dataset="world")
    base = add_run(workspace, "pretrain", "base", parents=PARENTS, created=CREATED)
    add_checkpoint(base, 2_000)
    return gone_on(workspace, base, "sft", "tuned")


def gone_on(workspace: Workspace, origin: RunDir, stage: str, name: str, **result: float) -> RunDir:
    parent = Parent(str(origin.checkpoints / "step-2000"), "ab" * 32)
    run = add_run(workspace, stage, name, parents={"checkpoint": parent}, created=CREATED + 5, result=result)
    add_checkpoint(run, 2_000)
    return run


def test_the_starter_life_goes_on_from_tuning_to_rankings_reward_and_policy(workspace: Workspace) -> None:
    tuned = tuned_world(workspace, ["starter:world"])
    step = life(workspace).step("reward")
    assert (step.state, step.stage, step.values["sources"]) == ("next", "build", ["starter:world-preferences"])
    assert states(workspace)["policy"] == "later"
    add_dataset(workspace, "world-preferences", digest="cc" * 32, kind="preference")
    step = life(workspace).step("reward")
    assert step.values == {"checkpoint": "tuned", "dataset": "world-preferences", "name": "tuned-reward"}
    step = life(workspace).step("policy")
    assert (step.state, step.stage, life(workspace).next.key) == ("open", "dpo", "reward"), "DPO needs no reward model"
    gone_on(workspace, tuned, "reward", "judge", **{"val/accuracy": 0.93})
    assert life(workspace).step("reward").detail == "2,000 steps, right 93%"
    step = life(workspace).step("policy")
    assert (step.state, step.stage) == ("next", "dpo")
    assert step.values == {"checkpoint": "tuned", "dataset": "world-preferences", "name": "tuned-dpo"}
    gone_on(workspace, tuned, "ppo", "better", **{"val/reward": 1.5})
    assert (life(workspace).step("policy").state, life(workspace).step("policy").name) == ("done", "better")
    assert life(workspace).step("chat").name == "better"


def test_a_reward_model_of_ones_own_data_waits_for_labels(workspace: Workspace) -> None:
    tuned_world(workspace, ["/texts"])
    assert (life(workspace).step("reward").state, life(workspace).step("reward").detail) == ("later", "needs labels")


def test_ranking_is_open_to_the_starter_life_and_comes_next_in_another(workspace: Workspace) -> None:
    tuned_world(workspace, ["starter:world"])
    add_dataset(workspace, "world-chat", digest="dd" * 32, kind="chat", sources=["starter:world-chat"])
    step = life(workspace).step("rank")
    assert (step.state, step.stage, life(workspace).next.key) == ("open", "sample", "reward")
    assert step.values == {"checkpoints": "tuned", "dataset": "world-chat", "max_prompts": 12}


def test_a_life_without_rankings_of_its_own_asks_for_them(workspace: Workspace) -> None:
    tuned_world(workspace, ["/texts"])
    add_dataset(workspace, "talks", digest="dd" * 32, kind="chat")
    assert (life(workspace).next.key, life(workspace).next.stage) == ("rank", "sample")
    sampling = add_run(workspace, "sample", "talks-answered", "running", created=CREATED + 9)
    lock = sampling.acquire()
    assert lock is not None
    assert (life(workspace).next.key, life(workspace).next.state) == ("rank", "running")
    os.close(lock)


def test_labels_become_the_rankings_that_a_reward_model_learns_from(workspace: Workspace) -> None:
    tuned_world(workspace, ["/texts"])
    judge(workspace)
    step = life(workspace).next
    assert (step.key, step.stage, step.detail) == ("reward", FREEZE, "1 label first")
    assert step.values == {"label_set": "mine"}
    step = life(workspace).step("policy")
    assert (step.state, step.stage, step.detail) == ("open", FREEZE, "1 label first")


def judge(workspace: Workspace) -> None:
    """A set of one prompt, judged."""
    task = (
        LabelPrompt(messages=[Message("user", "?")], part="eval"),
        [Candidate(run="r", k=k, text=str(k)) for k in (0, 1)],
    )
    with open_labels(workspace.ensure().labels) as labels:
        shown = labels.next(labels.add_set("mine", "rank", [task]).id, "ada")
        assert shown is not None
        labels.save(shown.label("rank", "ada", ranks=[1, 2]))


def test_ranking_wants_a_set_then_judgements(workspace: Workspace) -> None:
    assert states(workspace)["rank"] == "later"
    workspace.ensure()
    task = (
        LabelPrompt(messages=[Message("user", "?")], part="eval"),
        [Candidate(run="r", k=k, text=str(k)) for k in (0, 1)],
    )
    with open_labels(workspace.labels) as labels:
        made = labels.add_set("mine", "rank", [task])
        assert (life(workspace).step("rank").state, life(workspace).step("rank").detail) == ("next", "1 to judge")
        shown = labels.next(made.id, "ada")
        assert shown is not None
        labels.save(shown.label("rank", "ada", ranks=[1, 2]))
    assert (life(workspace).step("rank").state, life(workspace).step("rank").detail) == ("done", "1 label")


def test_dataset_leads_to_its_tokenizer(workspace: Workspace) -> None:
    add_dataset(workspace, "world")
    step = life(workspace).next
    assert (step.key, step.values) == ("tokenizer", {"dataset": "world", "name": "world-bpe"})


def test_tokenizer_of_another_dataset_does_not_count(workspace: Workspace) -> None:
    add_dataset(workspace, "world")
    add_tokenizer(workspace, "other", dataset="other", dataset_digest="ff" * 32)
    assert life(workspace).next.key == "tokenizer"


def test_dataset_and_tokenizer_lead_to_pretraining(workspace: Workspace) -> None:
    add_dataset(workspace, "world")
    add_tokenizer(workspace, "world-bpe", dataset="world")
    step = life(workspace).next
    assert step.key == "pretrain"
    assert step.values == {"dataset": "world", "tokenizer": "world-bpe", "name": "world-tiny"}


def test_name_of_the_next_model_is_free(workspace: Workspace) -> None:
    add_dataset(workspace, "world")
    add_tokenizer(workspace, "world-bpe", dataset="world")
    add_run(workspace, "pretrain", "world-tiny")
    assert life(workspace).step("pretrain").values["name"] == "world-tiny-2"


def test_finished_model_with_a_checkpoint_can_be_tuned_and_talked_to(populated: Workspace) -> None:
    found = life(populated)
    assert found.names == ["world", "world-bpe", "world-tiny"]
    assert [step.state for step in found.steps[:3]] == ["done"] * 3
    assert found.next.key == "sft"
    assert (found.step("chat").state, found.step("chat").name) == ("next", "world-tiny")


def test_run_without_a_worker_is_lost_not_running(workspace: Workspace) -> None:
    add_dataset(workspace, "world")
    add_run(workspace, "tokenizer", "world-bpe", "running", parents={"dataset": PARENTS["dataset"]})
    step = life(workspace).step("tokenizer")
    assert step.state == "failed" and step.detail.startswith("lost")


def test_failed_step_says_why(workspace: Workspace) -> None:
    error = RunError("UserError", "Nothing was left after cleaning.", "Lower min_characters.")
    add_run(workspace, "build", "mine", "failed", error=error)
    step = life(workspace).next
    assert (step.key, step.state, step.detail) == ("data", "failed", error.message)


def test_cancelled_build_leaves_no_trace_in_the_life(workspace: Workspace) -> None:
    add_run(workspace, "build", "mine", "stopped")
    assert life(workspace).next.state == "next"


def test_failed_build_of_a_dataset_that_was_built_since_does_not_count(workspace: Workspace) -> None:
    add_run(workspace, "build", "world", "failed", created=CREATED - 10)
    add_dataset(workspace, "world")
    assert len(lives(Survey(workspace).look())) == 1
    assert life(workspace).step("data").state == "done"


def test_lineage_with_the_latest_activity_comes_first(workspace: Workspace) -> None:
    add_dataset(workspace, "old", digest=DATASET_DIGEST, created=CREATED - 100)
    add_dataset(workspace, "new", digest="d2" * 32, created=CREATED - 50)
    assert life(workspace).names == ["new"]
    add_tokenizer(workspace, "old-bpe", dataset="old", created=CREATED)
    assert life(workspace).names == ["old", "old-bpe"]


def test_stopped_model_with_a_checkpoint_can_be_tuned_and_talked_to(workspace: Workspace) -> None:
    add_dataset(workspace, "world")
    add_tokenizer(workspace, "world-bpe", dataset="world")
    run = add_run(workspace, "pretrain", "world-tiny", "stopped", parents=PARENTS, step=500, created=CREATED + 1)
    assert life(workspace).next.key == "pretrain"
    assert life(workspace).step("sft").detail == "needs a model"
    add_checkpoint(run, 500)
    assert (life(workspace).step("pretrain").state, life(workspace).next.key) == ("stopped", "sft")
    assert life(workspace).step("chat").state == "next"


def test_what_comes_after_tuning_goes_on_from_where_it_was_stopped(workspace: Workspace) -> None:
    tuned = tuned_world(workspace, ["/texts"])
    add_dataset(workspace, "ranked", digest="cc" * 32, kind="preference")
    tuned.write_state(msgspec.structs.replace(tuned.state(), status="stopped"))
    assert (life(workspace).step("sft").state, life(workspace).step("chat").state) == ("stopped", "next")
    assert life(workspace).step("reward").values["checkpoint"] == "tuned"
    assert life(workspace).step("policy").values["checkpoint"] == "tuned"
    shutil.rmtree(tuned.checkpoints)
    assert [life(workspace).step(key).detail for key in ("reward", "policy")] == ["needs SFT", "needs SFT"]


def test_paused_model_is_what_wants_attention(workspace: Workspace) -> None:
    add_dataset(workspace, "world")
    add_tokenizer(workspace, "world-bpe", dataset="world")
    add_run(workspace, "pretrain", "world-tiny", "paused", parents=PARENTS, step=500, created=CREATED + 1)
    step = life(workspace).next
    assert (step.state, step.detail) == ("paused", "paused at 25%")


def test_unreadable_run_is_left_out(populated: Workspace) -> None:
    broken = next(populated.runs.iterdir())
    (broken / "spec.json").write_text("{")
    assert len(Survey(populated).look().runs) == 4


def test_survey_sees_a_changed_state(workspace: Workspace) -> None:
    run = add_run(workspace, "build", "mine", "failed")
    survey = Survey(workspace)
    assert survey.look().runs[0].status == "failed"
    state = run.state()
    state.status = "stopped"
    run.write_state(state)
    assert survey.look().runs[0].status == "stopped"


def with_model(workspace: Workspace, source: str = "starter:world") -> RunDir:
    """A life up to its finished pre-training, with a checkpoint."""
    add_dataset(workspace, "world", sources=[source])
    add_tokenizer(workspace, "world-bpe", dataset="world")
    model = add_run(workspace, "pretrain", "world-tiny", parents=PARENTS)
    add_checkpoint(model, 2_000)
    return model


def test_a_model_leads_to_conversations_and_these_to_tuning(workspace: Workspace) -> None:
    model = with_model(workspace)
    step = life(workspace).next
    assert (step.key, step.stage) == ("sft", "build")
    assert step.values == {"sources": ["starter:world-chat"], "name": "world-chat"}
    add_dataset(workspace, "world-chat", kind="chat", digest="c1" * 32, sources=["starter:world-chat"])
    step = life(workspace).next
    assert (step.key, step.stage) == ("sft", "sft")
    values = {"dataset": "world-chat", "checkpoint": "world-tiny", "name": "world-tiny-sft"}
    assert {key: step.values[key] for key in values} == values

    parents = {"checkpoint": Parent(str(model.checkpoints / "step-2000"), "cc" * 32)}
    tuned = add_run(workspace, "sft", "world-tiny-sft", created=CREATED + 50, parents=parents, step=10)
    found = life(workspace)
    assert found.step("sft").state == "done" and found.names[-1] == "world-tiny-sft"
    assert found.step("chat").name == "world-tiny"
    add_checkpoint(tuned, 10)
    assert life(workspace).step("chat").name == "world-tiny-sft"


def test_conversations_being_built_are_a_part_of_tuning(workspace: Workspace) -> None:
    with_model(workspace)
    run = add_run(workspace, "build", "world-chat", "running", settings={"sources": ["starter:world-chat"]})
    assert run.acquire() is not None
    step = life(workspace).step("sft")
    assert (step.state, step.name) == ("running", "world-chat")


def test_a_life_of_ones_own_asks_for_conversations_of_ones_own(workspace: Workspace) -> None:
    with_model(workspace, source="/my/texts")
    step = life(workspace).step("sft")
    assert (step.stage, step.values) == ("build", {"kind": "chat", "name": "world-chat"})
    add_dataset(workspace, "mine", kind="chat", digest="c1" * 32, created=CREATED + 9)
    assert life(workspace).step("sft").values["dataset"] == "mine"


def test_tuning_of_another_model_does_not_count(workspace: Workspace) -> None:
    with_model(workspace)
    parents = {"checkpoint": Parent("/elsewhere/checkpoints/step-5", "cc" * 32)}
    add_run(workspace, "sft", "other-sft", parents=parents)
    assert life(workspace).step("sft").state == "next"
