"""Checking a policy by hand: both models answer, a person and the reward model judge the same pairs, both are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.store.checkpoints import resolve_checkpoint
from stages.store.errors import UserError
from stages.store.labels import open_labels
from stages.store.rundir import Parent, RunDir, RunSpec, create_run
from stages.store.workspace import Workspace
from tests.stages.policy_helpers import policy_workspace
from tests.tiny_model import write_tiny_checkpoint
from workbench.judging import hand_check
from workbench.settings import Settings


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return policy_workspace(tmp_path)


@pytest.fixture
def policy(workspace: Workspace) -> RunDir:
    """A policy run with a checkpoint, as its worker left it."""
    parents = {"dataset": Parent("sums", "ab" * 32)}
    for role, name in (("checkpoint", "base"), ("reward", "judge")):
        found = resolve_checkpoint(workspace, name)
        parents[role] = Parent(str(found.path), found.digest())
    spec = RunSpec(stage="ppo", name="better", settings={"max_new_tokens": 8}, parents=parents, threads=1)
    run = create_run(workspace, spec)
    write_tiny_checkpoint(run.checkpoints / "step-20", context=96, seed=5, name="better", step=20)
    return run


def test_both_answer_and_a_person_and_the_reward_model_judge_the_same_pairs(
    workspace: Workspace, policy: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hand_check, "PROMPTS", 4)
    settings = Settings()
    sampling = hand_check.begin(workspace, policy, settings)
    name = hand_check.finish(workspace, sampling, settings, lambda: False)
    assert name == "better-check"
    with open_labels(workspace.labels) as labels:
        chosen = labels.find_set(name)
        assert (chosen.mode, chosen.prompts) == ("pair", 4)
        for _ in range(3):
            shown = labels.next(chosen.id, "ada")
            assert shown is not None
            mine = [one.checkpoint for one in shown.completions].index("better@20")
            ranks = [1, 2] if mine == 0 else [2, 1]
            labels.save(shown.label("pair", "ada", ranks=ranks))
        shown = labels.next(chosen.id, "ada")
        assert shown is not None
        labels.save(shown.label("pair", "ada", ranks=[1, 1]))
    assert hand_check.ask_reward_model(workspace, policy, settings, lambda: False) == 4
    (found,) = hand_check.verdicts(workspace, "better")
    assert found.step == 20
    assert found.people is not None and found.model is not None
    assert (found.people.hits, found.people.of, found.model.of) == (3.5, 4, 4)


def test_a_policy_without_a_checkpoint_is_told(workspace: Workspace) -> None:
    run = create_run(workspace, RunSpec(stage="ppo", name="young", settings={}, parents={}, threads=1))
    with pytest.raises(UserError, match="young has no checkpoint yet"):
        hand_check.begin(workspace, run, Settings())


def test_who_stops_waiting_loses_nothing(workspace: Workspace, policy: RunDir) -> None:
    sampling = hand_check.begin(workspace, policy, Settings())
    assert hand_check.finish(workspace, sampling, Settings(), lambda: True) is None
    assert hand_check.verdicts(workspace, "better") == []
    assert hand_check.finish(workspace, sampling, Settings(), lambda: False) == "better-check"
