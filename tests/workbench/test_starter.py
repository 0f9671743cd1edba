"""The starter life: one step after the other, whoever watches; a step that fails halts it and can be tried again."""

from __future__ import annotations

from typing import Any

import pytest

from stages.store.rundir import Parent, RunDir, RunError
from stages.store.workspace import Workspace
from tests.workbench.conftest import (
    DATASET_DIGEST,
    TOKENIZER_DIGEST,
    add_checkpoint,
    add_dataset,
    add_run,
    add_tokenizer,
)
from workbench import runs
from workbench.life.starter import StarterLife
from workbench.settings import Settings

PARENTS = {"dataset": Parent("world", DATASET_DIGEST), "tokenizer": Parent("world-bpe", TOKENIZER_DIGEST)}


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, dict[str, Any]]]:
    """What would have been launched: (stage, name, everything else)."""
    calls: list[tuple[str, str, dict[str, Any]]] = []

    def launch(_: Workspace, stage: str, name: str, settings: dict[str, Any], **rest: Any) -> None:
        calls.append((stage, name, {"settings": settings, **rest}))

    def start(run: RunDir, **_: Any) -> None:
        calls.append(("again", run.spec().name, {}))

    monkeypatch.setattr(runs, "launch", launch)
    monkeypatch.setattr(runs, "start", start)
    return calls


def test_each_step_follows_the_one_that_is_done(workspace: Workspace, launched: list[Any]) -> None:
    starter = StarterLife(workspace, Settings(pretrain={"steps": 50}))
    assert starter.advance().outcome == "launched"
    assert launched[-1][:2] == ("build", "world") and launched[-1][2]["settings"] == {"sources": ["starter:world"]}
    add_dataset(workspace, "world", sources=["starter:world"])
    starter.advance()
    assert launched[-1][:2] == ("tokenizer", "world-bpe") and launched[-1][2]["dataset"] == "world"
    add_tokenizer(workspace, "world-bpe", dataset="world")
    starter.advance()
    assert launched[-1][:2] == ("pretrain", "world-tiny")
    assert launched[-1][2]["tokenizer"] == "world-bpe" and launched[-1][2]["settings"] == {"steps": 50}
    model = add_run(workspace, "pretrain", "world-tiny", parents=PARENTS)
    add_checkpoint(model, 50)
    starter.advance()
    assert launched[-1][:2] == ("build", "world-chat")
    assert launched[-1][2]["settings"] == {"sources": ["starter:world-chat"]}
    add_dataset(workspace, "world-chat", kind="chat", digest="c1" * 32, sources=["starter:world-chat"])
    starter.advance()
    assert launched[-1][:2] == ("sft", "world-tiny-sft")
    tuning = launched[-1][2]
    assert (tuning["dataset"], tuning["checkpoint"]) == ("world-chat", "world-tiny") and tuning["settings"][
        "epochs"
    ] > 1
    parents = {"checkpoint": Parent(str(model.checkpoints / "step-50"), "cc" * 32)}
    add_run(workspace, "sft", "world-tiny-sft", parents=parents)
    assert starter.advance().outcome == "done" and len(launched) == 5


def test_waits_while_a_step_is_at_work(workspace: Workspace, launched: list[Any]) -> None:
    run = add_run(workspace, "build", "world", "running", settings={"sources": ["starter:world"]})
    assert run.acquire() is not None
    assert StarterLife(workspace, Settings(), "world").advance().outcome == "waiting"
    assert launched == []


def test_failed_step_halts_and_is_tried_again_when_asked(workspace: Workspace, launched: list[Any]) -> None:
    error = RunError("WorkFailed", "The disk is full.")
    add_run(workspace, "build", "world", "failed", settings={"sources": ["starter:world"]}, error=error)
    starter = StarterLife(workspace, Settings(), "world")
    advance = starter.advance()
    assert advance.outcome == "halted" and advance.step.detail == "The disk is full." and launched == []
    assert starter.advance(again=True).outcome == "launched"
    assert launched == [("again", "world", {})]


def test_new_app_goes_on_where_another_left_off(workspace: Workspace, launched: list[Any]) -> None:
    add_dataset(workspace, "world", sources=["starter:world"])
    StarterLife(workspace, Settings(), "world").advance()
    assert launched[0][:2] == ("tokenizer", "world-bpe")


def test_dataset_of_the_user_is_left_alone(workspace: Workspace, launched: list[Any]) -> None:
    add_dataset(workspace, "world", sources=["/my/texts"])
    StarterLife(workspace, Settings()).advance()
    assert launched[0][:2] == ("build", "world-2")
