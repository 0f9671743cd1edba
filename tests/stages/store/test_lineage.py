"""Nothing that something else needs is deleted, and what is deleted is gone in one step."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from stages.store.building import building
from stages.store.checkpoints import Checkpoint, Lineage, write_checkpoint
from stages.store.datasets import DatasetInfo, list_datasets
from stages.store.errors import UserError
from stages.store.files import TEMPORARY
from stages.store.lineage import (
    Child,
    Stretch,
    ancestry,
    children_of_dataset,
    children_of_run,
    children_of_tokenizer,
    delete_dataset,
    delete_run,
    delete_tokenizer,
    parents_of,
)
from stages.store.rundir import Parent, RunDir, RunSpec, RunState, create_run, list_runs
from stages.store.tokenizers import INFO, TokenizerInfo, list_tokenizers
from stages.store.workspace import Workspace

TEXT, OTHER, TOKENS = "a" * 64, "b" * 64, "c" * 64


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Dataset `text`, tokenizer `bpe` trained on it, run `gpt` on both, run `more` from gpt's checkpoint."""
    workspace = Workspace(tmp_path / "ws").ensure()
    add_dataset(workspace, "text", TEXT)
    add_tokenizer(workspace, "bpe", TOKENS, "text", TEXT)
    return workspace


def add_dataset(workspace: Workspace, name: str, digest: str) -> None:
    (workspace.datasets / name).mkdir()
    info = DatasetInfo(name=name, kind="text", digest=digest, records={"train": 1})
    (workspace.datasets / name / "dataset.json").write_bytes(msgspec.json.encode(info))


def add_tokenizer(workspace: Workspace, name: str, digest: str, dataset: str, dataset_digest: str) -> None:
    (workspace.tokenizers / name).mkdir()
    info = TokenizerInfo(
        name=name, type="bpe", vocab_size=512, digest=digest, dataset=dataset, dataset_digest=dataset_digest
    )
    (workspace.tokenizers / name / INFO).write_bytes(msgspec.json.encode(info))


def add_run(workspace: Workspace, name: str, stage: str = "pretrain", **parents: Parent) -> RunDir:
    run = create_run(workspace, RunSpec(stage=stage, name=name, settings={}, parents=parents, created=time.time()))
    run.write_state(RunState(status="finished"))
    return run


def add_checkpoint(run: RunDir, step: int) -> Checkpoint:
    return write_checkpoint(run.checkpoints / f"step-{step}", lambda folder: fill(folder, run.id, step))


def fill(folder: Path, run: str, step: int) -> None:
    (folder / "model.safetensors").write_text(f"{run} at {step}")


def test_children_are_those_that_pin_this_very_content(workspace: Workspace) -> None:
    add_run(workspace, "gpt", dataset=Parent("text", TEXT), tokenizer=Parent("bpe", TOKENS))
    add_run(workspace, "older", dataset=Parent("text", OTHER), tokenizer=Parent("bpe", OTHER))
    assert set(children_of_dataset(workspace, "text")) == {Child("tokenizer", "bpe"), Child("run", "gpt")}
    assert children_of_tokenizer(workspace, "bpe") == [Child("run", "gpt")]


def test_what_something_needs_is_kept_and_the_needy_are_named(workspace: Workspace) -> None:
    add_run(workspace, "gpt", dataset=Parent("text", TEXT), tokenizer=Parent("bpe", TOKENS))
    with pytest.raises(UserError, match="needed by tokenizer 'bpe', run 'gpt'"):
        delete_dataset(workspace, "text")
    with pytest.raises(UserError, match="needed by run 'gpt'"):
        delete_tokenizer(workspace, "bpe")
    assert list_datasets(workspace)
    assert list_tokenizers(workspace)


def test_a_lineage_is_deleted_from_its_end(workspace: Workspace) -> None:
    add_run(workspace, "gpt", dataset=Parent("text", TEXT), tokenizer=Parent("bpe", TOKENS))
    delete_run(workspace, "gpt")
    delete_tokenizer(workspace, "bpe")
    delete_dataset(workspace, "text")
    assert not list_datasets(workspace)
    assert not list_tokenizers(workspace)
    assert not list_runs(workspace)
    left = [path.name for path in workspace.root.rglob(f"{TEMPORARY}*")]
    assert left == []


def test_the_ended_run_that_built_a_thing_does_not_hold_its_parents(workspace: Workspace) -> None:
    delete_tokenizer(workspace, "bpe")
    add_run(workspace, "train-bpe", stage="tokenizer", dataset=Parent("text", TEXT))
    delete_dataset(workspace, "text")
    assert not list_datasets(workspace)


@pytest.fixture
def hold() -> Iterator[Callable[[RunDir], None]]:
    """Another process that holds a run's lock, as a worker does."""
    children: list[subprocess.Popen[str]] = []

    def start(run: RunDir) -> None:
        code = f"""if True:
            import sys
            from pathlib import Path
            from stages.store.rundir import RunDir
            held = RunDir(Path({str(run.path)!r})).acquire()
            print("held", flush=True)
            sys.stdin.read()"""
        children.append(
            subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        assert children[-1].stdout is not None
        assert children[-1].stdout.readline() == "held\n"

    yield start
    for child in children:
        child.communicate("")


def test_a_deletion_that_was_killed_leaves_no_stray(workspace: Workspace) -> None:
    stray = workspace.datasets / ".tmp-old-0123abcd"
    stray.mkdir()
    list_datasets(workspace)
    assert not stray.exists()


def test_a_run_at_work_is_not_deleted(workspace: Workspace, hold: Callable[[RunDir], None]) -> None:
    run = add_run(workspace, "gpt")
    run.write_state(RunState(status="running"))
    hold(run)
    with pytest.raises(UserError, match="at work"):
        delete_run(workspace, "gpt")
    assert run.path.is_dir()


def test_a_tokenizer_in_training_holds_its_dataset(workspace: Workspace, hold: Callable[[RunDir], None]) -> None:
    delete_tokenizer(workspace, "bpe")
    run = add_run(workspace, "train-bpe", stage="tokenizer", dataset=Parent("text", TEXT))
    hold(run)
    with pytest.raises(UserError, match="train-bpe"):
        delete_dataset(workspace, "text")


def test_a_run_at_work_on_another_host_is_not_deleted(workspace: Workspace) -> None:
    run = add_run(workspace, "far")
    run.write_state(RunState(status="running", host="elsewhere", heartbeat=time.time()))
    with pytest.raises(UserError, match="at work"):
        delete_run(workspace, "far")
    run.write_state(RunState(status="running", host="elsewhere", heartbeat=time.time() - 3_600))
    delete_run(workspace, "far")
    assert not run.path.exists()


def test_a_lost_run_and_one_that_cannot_be_read_are_deleted(workspace: Workspace) -> None:
    lost = add_run(workspace, "lost")
    lost.write_state(RunState(status="running"))
    broken = add_run(workspace, "broken")
    (broken.path / "spec.json").write_text("{")
    (broken.path / "state.json").write_text("")
    delete_run(workspace, "lost")
    delete_run(workspace, broken.id)
    assert list_runs(workspace) == []


def test_a_run_whose_checkpoint_was_built_upon_is_kept(workspace: Workspace) -> None:
    gpt = add_run(workspace, "gpt")
    checkpoint = add_checkpoint(gpt, 10)
    add_run(workspace, "more", checkpoint=Parent(str(checkpoint.path), checkpoint.digest()))
    assert children_of_run(workspace, gpt) == [Child("run", "more")]
    with pytest.raises(UserError, match="needed by run 'more'"):
        delete_run(workspace, "gpt")


def test_a_pruned_checkpoint_still_ties_its_child(workspace: Workspace) -> None:
    gpt = add_run(workspace, "gpt")
    add_run(workspace, "more", checkpoint=Parent(str(gpt.checkpoints / "step-3"), OTHER))
    assert children_of_run(workspace, gpt) == [Child("run", "more")]


def test_a_dataset_that_is_being_rebuilt_is_not_deleted(workspace: Workspace) -> None:
    add_dataset(workspace, "again", OTHER)
    with building(workspace.datasets, "again", "dataset", replace=True) as folder:
        (folder / "dataset.json").write_bytes((workspace.datasets / "again" / "dataset.json").read_bytes())
        with pytest.raises(UserError, match="built anew"):
            delete_dataset(workspace, "again")
    delete_dataset(workspace, "again")


def test_parents_are_told_apart_as_present_changed_and_gone(workspace: Workspace) -> None:
    gpt = add_run(workspace, "gpt")
    checkpoint = add_checkpoint(gpt, 10)
    found = parents_of(
        workspace,
        {
            "dataset": Parent("text", OTHER),
            "tokenizer": Parent("bpe", TOKENS),
            "checkpoint": Parent(str(checkpoint.path), checkpoint.digest()),
            "reward": Parent(str(gpt.checkpoints / "step-99"), OTHER),
        },
    )
    assert [ancestor.state for ancestor in found] == ["changed", "present", "present", "gone"]


def test_a_teacher_is_kept_as_long_as_its_student(workspace: Workspace) -> None:
    large = add_run(workspace, "large", dataset=Parent("text", TEXT))
    small = add_run(workspace, "small", dataset=Parent("text", TEXT))
    pinned = {
        role: Parent(str(one.path), one.digest())
        for role, one in (("checkpoint", add_checkpoint(small, 10)), ("teacher", add_checkpoint(large, 20)))
    }
    add_run(workspace, "student", "sft", **pinned)
    assert children_of_run(workspace, large) == children_of_run(workspace, small) == [Child("run", "student")]
    with pytest.raises(UserError, match="needed by run 'student'"):
        delete_run(workspace, "large")
    assert {one.role: one.state for one in parents_of(workspace, pinned)} == {
        "checkpoint": "present",
        "teacher": "present",
    }
    delete_run(workspace, "student")
    delete_run(workspace, "large")


def test_an_ended_evaluation_does_not_hold_what_it_measured(workspace: Workspace) -> None:
    gpt = add_run(workspace, "gpt")
    one = add_checkpoint(gpt, 10)
    add_run(workspace, "measured", "evaluate", **{"checkpoint-1": Parent(str(one.path), one.digest())})
    delete_run(workspace, "gpt")
    assert not gpt.path.exists()


def test_the_ancestry_of_a_checkpoint_is_told_even_where_one_is_gone(workspace: Workspace, tmp_path: Path) -> None:
    gpt = add_run(workspace, "gpt")
    sft = add_run(workspace, "tuned", "sft", checkpoint=Parent(str(gpt.checkpoints / "step-40")))
    lineage = Lineage(
        stage="dpo",
        run="r",
        name="better",
        step=7,
        parents={"checkpoint": Parent(str(sft.checkpoints / "step-9")), "teacher": Parent(str(tmp_path))},
    )
    folder = tmp_path / "step-7"
    folder.mkdir()
    (folder / "workbench.json").write_bytes(msgspec.json.encode(lineage))
    wanted = [Stretch("pretrain", "gpt", 40), Stretch("sft", "tuned", 9), Stretch("dpo", "better", 7)]
    assert ancestry(folder) == wanted
    assert ancestry(tmp_path / "smol") == [Stretch("", "smol", 0)]
