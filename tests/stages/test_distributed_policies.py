"""GRPO and PPO by several processes: what they draw, what it earns and what they learn from it is that of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stages.store.checkpoints import list_checkpoints
from stages.store.rundir import RunDir
from stages.store.workspace import Workspace
from tests.stages import helpers
from tests.stages.policy_helpers import SMALL, policy_run, policy_workspace, text_dataset
from tests.stages.test_distributed import break_off, by_srun, elsewhere, finish, rows
from tests.stages.test_policy import MORE, STAGES, bits, short_answers, texts
from workbench import runs

__all__ = ["by_srun"]

DIGITS = """
def reward(prompt, completion, answer):
    return sum(letter.isdigit() for letter in completion) / (1 + len(completion)) + 0.01 * len(prompt)
"""
FAILS = """import os

def reward(prompt, completion, answer):
    return 1 / (os.environ["SLURM_PROCID"] < "1")
"""
LONG = {"steps": 30, "checkpoint_every": 3, "eval_every": 15, "sample_every": 15}
"""It saves so often that there is time to break it off."""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return policy_workspace(tmp_path)


@pytest.fixture
def digits(tmp_path: Path) -> dict[str, Any]:
    """Settings that have a Python file score completions."""
    file = tmp_path / "digits.py"
    file.write_text(DIGITS)
    return {"reward": "python", "reward_file": str(file)}


def alone(workspace: Workspace, stage: str, settings: dict[str, Any], extra: dict[str, str] | None = None) -> RunDir:
    """The run in this process, to its end."""
    run = policy_run(workspace, stage, "alone", extra=extra, **MORE[stage] | settings)
    STAGES[stage].run(run)
    return run.dir


def together(
    workspace: Workspace,
    stage: str,
    settings: dict[str, Any],
    extra: dict[str, str] | None = None,
    processes: int = 2,
    name: str = "together",
) -> RunDir:
    """The same begun by several processes."""
    wanted = SMALL | MORE[stage] | settings | {"gpus": processes}
    return runs.launch(workspace, stage, name, wanted, dataset="sums", checkpoint="base", extra=extra or {})


def figures(run: RunDir) -> dict[int, dict[str, float]]:
    """All that counts of what was logged, by step; times and rates left out."""
    gone = ("time", "tokens_per_s")
    return {step: {key: row[key] for key in row if key not in gone} for step, row in rows(run).items()}


def same(run: RunDir, one: RunDir) -> None:
    """A token that is drawn differs only where its random number falls between two roundings of a probability's border,
    which are some 1e-7 apart: of these few hundred, drawn with fixed seeds, none does."""
    assert texts(run) == texts(one)
    assert figures(run).keys() == figures(one).keys()
    for step, row in figures(one).items():
        assert figures(run)[step] == pytest.approx(row, rel=1e-5, abs=1e-5), step


def test_two_processes_improve_a_policy_by_ppo_as_one(workspace: Workspace, by_srun: Path) -> None:
    settings = {"reward": "auto", "whiten_rewards": True, "minibatches": 1, "steps": 4}
    run = finish(together(workspace, "ppo", settings, {"reward": "judge"}))
    same(run, alone(workspace, "ppo", settings, {"reward": "judge"}))
    resume = list_checkpoints(run)[-1].path / "resume"
    assert len(list(resume.glob("rank-*-of-00002.safetensors"))) == 2


def test_two_processes_improve_a_policy_by_grpo_as_one(
    workspace: Workspace, digits: dict[str, Any], by_srun: Path
) -> None:
    settings = digits | {"steps": 4}
    same(finish(together(workspace, "grpo", settings)), alone(workspace, "grpo", settings))


@pytest.mark.soak
def test_a_run_by_torchrun_goes_on_after_one_process_is_killed(workspace: Workspace, digits: dict[str, Any]) -> None:
    run = together(workspace, "grpo", digits | LONG)
    break_off(run, 1)
    runs.start(run)
    same(finish(run), alone(workspace, "grpo", digits | LONG))


@pytest.mark.soak
@pytest.mark.parametrize("stage", ["grpo", "ppo"])
def test_resuming_is_bit_exact_on_as_many_processes_and_close_on_others(
    workspace: Workspace, digits: dict[str, Any], tmp_path: Path, stage: str
) -> None:
    settings = digits | LONG | {"batch_size": 6}
    one = alone(workspace, stage, settings)
    whole = finish(together(workspace, stage, settings, name="whole"))
    run = together(workspace, stage, settings)
    break_off(run, 0)
    for processes in (1, 3):
        copy = elsewhere(run, tmp_path / f"copy-{processes}")
        runs.start(copy, gpus=processes)
        same(finish(copy), one)
    runs.start(run)
    finish(run)
    assert bits(run) == bits(whole) and len(bits(run)) == (3 if stage == "grpo" else 5)
    assert figures(run) == figures(whole)


@pytest.mark.soak
@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize(
    ("stage", "settings", "extra"),
    [
        ("grpo", {"resample": 3, "group": 2, "minibatches": 5, "spread": "batch"}, {}),
        ("ppo", {"value": "head", "minibatches": 5, "ptx_batch": 2}, {"pretraining": "prose"}),
    ],
)
def test_shares_may_be_uneven_or_empty(
    workspace: Workspace, by_srun: Path, stage: str, settings: dict[str, Any], extra: dict[str, str], processes: int
) -> None:
    text_dataset(workspace.datasets / "prose", [f"The sum is {n} and more of it. " for n in range(600)])
    wanted = settings | {"batch_size": 6}
    run = finish(together(workspace, stage, wanted, extra, processes))
    one = policy_run(workspace, stage, "alone", texts=extra, **MORE[stage] | wanted)
    STAGES[stage].run(one)
    same(run, one.dir)


@pytest.mark.soak
def test_an_alarm_pauses_all_processes_at_one_step(workspace: Workspace) -> None:
    settings = SMALL | MORE["grpo"] | {
        "steps": 200,
        "reward": "length",
        "max_new_tokens": 48,
        "batch_size": 16,
        "missing_end_penalty": 0.0,
        "lr": 1e-3,
        "checkpoint_every": 100,
        "eval_every": 100,
        "pause_on_alarm": True,
        "max_kl": 1e3,
        "max_length_ratio": 1.5,
        "gpus": 2,
    }  # fmt: skip
    run = runs.launch(workspace, "grpo", "greedy", settings, dataset="sums", checkpoint=short_answers(workspace))
    helpers.wait_until(lambda: not run.alive(), seconds=600, what="the pause")
    assert run.status() == "paused" and "Paused at length" in run.state().phase
    assert list_checkpoints(run)[-1].step == run.state().step
    events = [json.loads(line) for line in run.events.read_bytes().splitlines()]
    assert [event["metric"] for event in events if event["event"] == "alarm"].count("policy/length") == 1


@pytest.mark.soak
def test_a_reward_file_that_fails_in_one_process_ends_the_run_in_its_sentence(
    workspace: Workspace, tmp_path: Path, by_srun: Path
) -> None:
    file = tmp_path / "fails.py"
    file.write_text(FAILS)
    run = together(workspace, "ppo", {"reward": "python", "reward_file": str(file)})
    helpers.wait_until(lambda: not run.alive(), seconds=600, what="the failure")
    error = run.state().error
    assert run.status() == "failed" and error is not None
    assert "The reward function failed: fails.py, line 4: ZeroDivisionError" in error.message
