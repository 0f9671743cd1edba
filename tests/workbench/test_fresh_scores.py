"""A chat's answers scored by a reward model once the person has ordered them: never before, and never in the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stages.store.errors import WorkFailed
from stages.store.labels import Prompt
from stages.store.records import Message
from stages.store.rundir import RunDir
from stages.store.workspace import Workspace
from tests.stages.policy_helpers import write_reward_model
from tests.tiny_model import write_tiny_checkpoint
from tests.workbench.conftest import add_checkpoint, add_run, settled, wait_for
from tests.workbench.test_chat_answers import ADA, again, in_force, rank
from tests.workbench.test_chat_screen import MakeApp, ask, chat_run, model, run, transcript
from workbench.judging.fresh_scores import NONE, Judge, judge_of, told
from workbench.screens.chat import ChatScreen
from workbench.settings import LabelSettings, Settings
from workbench.talking.desk_client import DeskClient

__all__ = ["chat_run", "run"]  # fixtures

Asked = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def judge(workspace: Workspace) -> RunDir:
    """A run that trains a reward model, with a checkpoint."""
    found = add_run(workspace, "reward", "judge")
    add_checkpoint(found, 8)
    return found


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, workspace: Workspace) -> Asked:
    """What the desk was asked, with the labels that were on the disk then; it likes earlier takes better."""
    seen: Asked = []

    async def answer(self: DeskClient, verb: str, **args: Any) -> Any:
        seen.append((verb, args | {"labels": len(in_force(workspace))}))
        takes = [int(one["completion"].split()[1]) for one in args["answers"]]
        return [{"raw": 0.0, "normal": 1.5 - take, "why": ""} for take in takes]

    monkeypatch.setattr(DeskClient, "ask", answer)
    return seen


async def two_answers(pilot: Any) -> None:
    pilot.app.open_chat("tiny@100")
    await wait_for(pilot, lambda: isinstance(pilot.app.screen, ChatScreen) and "answers you" in model(pilot))
    await ask(pilot, "vary")
    await pilot.press("escape")
    await again(pilot, 2)


async def test_after_the_own_order_the_model_s_order_and_scores_are_told(
    make_app: MakeApp, chat_run: RunDir, judge: RunDir, asked: Asked
) -> None:
    async with make_app(Settings(labels=ADA)).run_test(size=(100, 30)) as pilot:
        await two_answers(pilot)
        assert not asked
        shown = await rank(pilot, "take 2")
        await wait_for(pilot, lambda: "judge@8 ordered them" in transcript(pilot))
        first, second = sorted((1, 2), key=lambda number: shown[number - 1])  # takes 1 and 2 by their places
        scores = ", ".join("0.50" if text.startswith("take 1") else "-0.50" for text in shown)
        wanted = f"judge@8 ordered them {first} > {second} · against you in 1 of 1 pair: {first} > {second}"
        assert f"{wanted} · scores {scores}" in transcript(pilot)
    ((verb, args),) = asked
    assert (verb, args["folder"]) == ("reward.score", str(judge.checkpoints / "step-8"))
    assert args["labels"] == 1  # the order was on the disk before the model was asked
    assert [one["completion"] for one in args["answers"]] == shown
    assert [each["content"] for each in args["answers"][0]["messages"]] == ["vary"]


async def test_a_ranking_stands_whatever_becomes_of_the_scores(
    make_app: MakeApp, chat_run: RunDir, judge: RunDir, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(self: DeskClient, verb: str, **args: Any) -> Any:
        raise WorkFailed("The helper process ended.")

    monkeypatch.setattr(DeskClient, "ask", fail)
    async with make_app(Settings(labels=ADA)).run_test(size=(100, 30)) as pilot:
        await two_answers(pilot)
        await rank(pilot, "take 2")
        await wait_for(pilot, lambda: "no reward model's order: The helper process ended." in transcript(pilot))
        assert "saved" in transcript(pilot) and len(in_force(workspace)) == 1


async def test_none_asks_nobody(make_app: MakeApp, chat_run: RunDir, judge: RunDir, asked: Asked) -> None:
    labels = LabelSettings(annotator="ada", reward_model=NONE)
    async with make_app(Settings(labels=labels)).run_test(size=(100, 30)) as pilot:
        await two_answers(pilot)
        await rank(pilot, "take 2")
        await settled(pilot)
        assert not asked and "ordered them" not in transcript(pilot)


def test_the_newest_reward_model_is_asked_or_the_one_that_is_named(workspace: Workspace, judge: RunDir) -> None:
    add_run(workspace, "reward", "without-checkpoint")
    add_checkpoint(judge, 16)
    assert judge_of(workspace, "") == Judge("judge@16", judge.checkpoints / "step-16")
    assert judge_of(workspace, "judge@8") == Judge("judge@8", judge.checkpoints / "step-8")
    assert judge_of(workspace, NONE) is None


async def test_a_real_reward_model_s_scores_come_from_the_desk(workspace: Workspace) -> None:
    base = write_tiny_checkpoint(workspace.models / "base")
    folder = write_reward_model(workspace.models / "judge", base)
    desk = DeskClient(workspace)
    try:
        prompt = Prompt(messages=[Message("user", "1+1")], part="policy")
        said = await told(desk, Judge("judge", Path(folder)), prompt, ["2", "3", "x" * 5_000], [1, 2, 3])
    finally:
        await desk.close()
    assert said.startswith("judge ordered them ") and said.endswith(", –")  # the last does not fit its context
