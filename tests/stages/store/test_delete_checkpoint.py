"""One checkpoint thrown into the bin: what it takes along, what keeps it, what becomes of the run, and back again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stages.store import lineage
from stages.store.bin import CHECKPOINTS, find_thrown, list_bin, restore
from stages.store.checkpoints import latest_verified, list_checkpoints
from stages.store.errors import UserError
from stages.store.labels import Candidate, Prompt, open_labels
from stages.store.lineage import delete_checkpoint, delete_run, told_before_deleting
from stages.store.records import Message
from stages.store.rundir import Parent, RunDir
from stages.store.workspace import Workspace
from tests.workbench.conftest import add_checkpoint, add_run


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "ws").ensure()


@pytest.fixture
def run(workspace: Workspace) -> RunDir:
    made = add_run(workspace, "pretrain", "first", status="stopped")
    for step in (10, 20, 30):
        add_checkpoint(made, step)
    return made


def steps(run: RunDir) -> list[int]:
    return [checkpoint.step for checkpoint in list_checkpoints(run)]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_last_one_goes_and_comes_back_and_the_run_goes_on_from_what_there_is(
    workspace: Workspace, run: RunDir
) -> None:
    before = contents(run.checkpoints / "step-30")
    delete_checkpoint(workspace, run, 30)
    assert steps(run) == [10, 20] and run.state().last_checkpoint == "step-20"
    (thrown,) = list_bin(workspace)
    assert (thrown.kind, thrown.title, thrown.bytes()) == (CHECKPOINTS, "first@30", sum(map(len, before.values())))
    assert restore(workspace, find_thrown(workspace, "first@30")) == run.checkpoints / "step-30"
    assert contents(run.checkpoints / "step-30") == before
    assert steps(run) == [10, 20, 30] and run.state().last_checkpoint == "step-30" and not list_bin(workspace)
    delete_checkpoint(workspace, run, 10)
    assert run.state().last_checkpoint == "step-30"


def test_a_checkpoint_that_others_go_on_from_is_kept_and_they_are_named(workspace: Workspace, run: RunDir) -> None:
    path = run.checkpoints / "step-20"
    add_run(workspace, "sft", "chatty", parents={"checkpoint": Parent(str(path), list_checkpoints(run)[1].digest())})
    for act in (delete_checkpoint, told_before_deleting):
        with pytest.raises(UserError, match="first@20 is needed by run 'chatty'"):
            act(workspace, run, 20)
    with pytest.raises(UserError, match=r"no checkpoint at step 25.*It has: 10, 20, 30"):
        delete_checkpoint(workspace, run, 25)
    assert steps(run) == [10, 20, 30]


def test_nothing_is_taken_from_a_run_at_work_nor_put_into_it(workspace: Workspace, run: RunDir) -> None:
    delete_checkpoint(workspace, run, 10)
    held = run.acquire()
    assert held is not None
    try:
        with pytest.raises(UserError, match="is at work"):
            delete_checkpoint(workspace, run, 30)
        with pytest.raises(UserError, match="The run of first@10 is at work"):
            restore(workspace, find_thrown(workspace, "first@10"))
    finally:
        os.close(held)
    assert steps(run) == [20, 30]


def test_broken_off_before_the_rename_all_is_there(
    workspace: Workspace, run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(lineage, "throw", killed)
    with pytest.raises(KeyboardInterrupt):
        delete_checkpoint(workspace, run, 30)
    found, refused = latest_verified(run)
    assert found is not None and (found.step, refused) == (30, []) and not list_bin(workspace)


def test_what_comes_back_finds_no_other_in_its_place_and_its_run_there(workspace: Workspace, run: RunDir) -> None:
    delete_checkpoint(workspace, run, 30)
    add_checkpoint(run, 30)  # the run has gone on
    with pytest.raises(UserError, match="another 'first@30'"):
        restore(workspace, find_thrown(workspace, "first@30"))
    delete_run(workspace, "first")
    thrown = find_thrown(workspace, f"{run.id}@30")
    with pytest.raises(UserError, match="not there any more"):
        restore(workspace, thrown)


def test_a_damaged_one_comes_back_and_is_not_what_the_run_goes_on_from(workspace: Workspace, run: RunDir) -> None:
    for step in (10, 20, 30):
        delete_checkpoint(workspace, run, step)
    thrown = next(each for each in list_bin(workspace) if each.home.name == "step-20")
    (thrown.path / "config.json").write_bytes(b"")
    restore(workspace, thrown)
    assert (run.checkpoints / "step-20").is_dir()
    assert run.state().last_checkpoint is None and steps(run) == []


def test_beforehand_size_labels_and_what_resuming_means_are_told(workspace: Workspace, run: RunDir) -> None:
    candidates = [Candidate(run="s", k=k, text=f"Because {k}.", checkpoint="first@30") for k in range(2)]
    with open_labels(workspace.labels) as labels:
        labels.add_set("whys", "rank", [(Prompt(messages=[Message("user", "Why?")], part="eval"), candidates)])
    told = told_before_deleting(workspace, run, 30)
    assert "MB go into the bin" in told and "Its answers stay in the label set whys." in told
    assert "from now on the run goes on from step 20" in told
    assert "label" not in (first := told_before_deleting(workspace, run, 10)) and "last" not in first
    for step in (10, 20):
        delete_checkpoint(workspace, run, step)
    assert "only checkpoint" in told_before_deleting(workspace, run, 30)
    delete_checkpoint(workspace, run, 30)
    assert run.state().last_checkpoint is None
