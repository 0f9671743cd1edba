"""A run directory tells the truth about its run."""

import errno
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from stages.store import rundir
from stages.store.checkpoints import LINEAGE, Checkpoint, Lineage
from stages.store.errors import UserError
from stages.store.notes import Notes, write_notes
from stages.store.rundir import (
    HEARTBEAT_OLD,
    STRAY_AGE,
    Parent,
    RunDir,
    RunSpec,
    RunState,
    create_run,
    find_run,
    list_runs,
)
from stages.store.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "ws").ensure()


def spec(name: str) -> RunSpec:
    return RunSpec(stage="pretrain", name=name, settings={"lr": 1e-3}, created=time.time())


def test_what_was_asked_for_is_read_back(workspace: Workspace) -> None:
    run = create_run(workspace, spec("one"))
    assert run.spec().settings == {"lr": 1e-3}
    assert run.state().status == "queued"
    assert [r.id for r in list_runs(workspace)] == [run.id]
    assert find_run(workspace, "one").path == run.path == find_run(workspace, run.id).path


def test_runs_made_in_one_second_never_have_one_id(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(["aaaa", "aaaa", "aaaa", "bbbb"])
    monkeypatch.setattr(rundir.secrets, "token_hex", lambda count: next(drawn) if count == 2 else "12345678")
    one, other = (create_run(workspace, msgspec.structs.replace(spec(name), created=1.0)) for name in ("a", "b"))
    assert [one.id[-4:], other.id[-4:]] == ["aaaa", "bbbb"]


def test_a_run_for_which_the_disk_has_no_room_leaves_nothing(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="is full"):
        create_run(workspace, spec("one"))
    assert list(workspace.runs.iterdir()) == []


def test_a_run_that_is_gone_is_said_to_be_gone(workspace: Workspace) -> None:
    run = create_run(workspace, spec("one"))
    shutil.rmtree(run.path)
    for act in (run.acquire, lambda: write_notes(run, Notes(note="hm"))):
        with pytest.raises(UserError, match=r"is gone\. `workbench bin`"):
            act()


def test_a_run_on_a_disk_that_cannot_be_written_is_not_taken(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create_run(workspace, spec("one"))

    def refuse(path: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(rundir, "try_lock", refuse)
    with pytest.raises(UserError, match="read-only file system"):
        run.acquire()


def test_a_run_whose_worker_is_gone_is_lost(workspace: Workspace) -> None:
    run = create_run(workspace, spec("one"))
    state = run.state()
    state.status = "running"
    run.write_state(state)
    descriptor = run.acquire()
    assert descriptor is not None
    assert run.status() == "running"
    os.close(descriptor)
    assert run.status() == "lost"


def test_the_lock_passes_to_a_child_and_ends_with_it(workspace: Workspace) -> None:
    run = create_run(workspace, spec("one"))
    descriptor = run.acquire()
    assert descriptor is not None
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[descriptor])
    os.close(descriptor)
    assert run.alive()
    assert run.acquire() is None
    child.kill()
    child.wait()
    assert not run.alive()


def test_on_another_host_an_old_heartbeat_means_lost(workspace: Workspace) -> None:
    run = create_run(workspace, spec("one"))
    now = time.time()
    run.write_state(RunState(status="running", host="elsewhere", heartbeat=now))
    assert run.status() == "running"
    run.write_state(RunState(status="running", host="elsewhere", heartbeat=now - HEARTBEAT_OLD - 1))
    assert run.status() == "lost"


def test_an_ended_run_is_what_it_says(workspace: Workspace) -> None:
    run = create_run(workspace, spec("one"))
    run.write_state(RunState(status="finished"))
    assert run.status() == "finished"


def test_the_lock_of_a_run_that_cannot_be_written_is_still_seen(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create_run(workspace, spec("one"))
    descriptor, real = run.acquire(), os.open
    assert descriptor is not None

    def read_only(path: Path, flags: int, *mode: int) -> int:
        if flags & os.O_RDWR:
            raise PermissionError(path)
        return real(path, flags, *mode)

    monkeypatch.setattr(os, "open", read_only)
    assert run.alive()
    os.close(descriptor)
    assert not run.alive()


def test_what_a_killed_launch_left_is_cleared_away_in_time(workspace: Workspace) -> None:
    old, fresh = workspace.runs / ".tmp-old", workspace.runs / ".tmp-fresh"
    for stray in (old, fresh):
        (stray / "checkpoints").mkdir(parents=True)
    long_ago = time.time() - STRAY_AGE - 1
    os.utime(old, (long_ago, long_ago))
    create_run(workspace, spec("one"))
    assert not old.exists()
    assert fresh.exists()


def test_an_unknown_run_names_the_nearest(workspace: Workspace) -> None:
    create_run(workspace, spec("shakespeare"))
    with pytest.raises(UserError, match="Did you mean 'shakespeare'"):
        find_run(workspace, "shakespear")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"stage": 3}', b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_spec_is_one_sentence(workspace: Workspace, content: bytes) -> None:
    run = create_run(workspace, spec("one"))
    (run.path / "spec.json").write_bytes(content)
    with pytest.raises(UserError):
        run.spec()
    with pytest.raises(UserError):
        find_run(workspace, "one")


def test_a_workspace_that_was_moved_or_copied_finds_its_own(workspace: Workspace, tmp_path: Path) -> None:
    base = workspace.runs / "20260101T000000Z-pretrain-aaaa" / "checkpoints" / "step-1"
    model, foreign = workspace.models / "smol", tmp_path / "elsewhere" / "models" / "smol"
    for folder in (base, model, foreign):
        folder.mkdir(parents=True)
    places = {"checkpoint": base, "teacher": model, "reference": foreign}
    parents = {role: Parent(str(place), "d") for role, place in places.items()}
    made = create_run(workspace, msgspec.structs.replace(spec("one"), parents=parents))
    written = Lineage(stage="sft", run="r", name="n", step=1, parents=parents)
    (base / LINEAGE).write_bytes(msgspec.json.encode(written))

    copied = Workspace(tmp_path / "copied")
    shutil.copytree(workspace.root, copied.root)
    own = copied.runs / base.relative_to(workspace.runs)
    found = RunDir(copied.runs / made.id).spec().parents
    assert {role: parent.name for role, parent in found.items()} == {
        "checkpoint": str(own), "teacher": str(model), "reference": str(foreign),
    }  # fmt: skip
    assert {parent.digest for parent in found.values()} == {"d"}

    shutil.rmtree(workspace.root)
    found = RunDir(copied.runs / made.id).spec().parents
    assert found["teacher"].name == str(copied.models / "smol")
    lineage = Checkpoint(own, 1).lineage()
    assert lineage is not None and lineage.parents == found
