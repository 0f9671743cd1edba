"""What is deleted can be taken back, byte for byte, until the bin is emptied."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from stages.store.bin import destroy, destroy_all, find_thrown, list_bin, restore
from stages.store.checkpoints import list_checkpoints
from stages.store.errors import UserError
from stages.store.files import temporary_beside
from stages.store.lineage import delete_dataset, delete_run
from stages.store.rundir import find_run, list_runs
from stages.store.workspace import Workspace
from tests.workbench.conftest import add_checkpoint, add_dataset, add_run


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "ws").ensure()


def files(folder: Path) -> dict[Path, bytes]:
    """What a folder holds, but for locks, which stay behind wherever somebody looked."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != "lock")
    return {path.relative_to(folder): path.read_bytes() for path in found}


def test_a_run_comes_back_with_its_checkpoints(workspace: Workspace) -> None:
    run = add_run(workspace, "pretrain", "first")
    add_checkpoint(run, 20)
    before = files(run.path)
    delete_run(workspace, "first")
    assert list_runs(workspace) == []
    (thrown,) = list_bin(workspace)
    assert (thrown.kind, thrown.name, thrown.bytes()) == ("runs", run.id, sum(map(len, before.values())))
    restore(workspace, thrown)
    assert list_bin(workspace) == []
    found = find_run(workspace, "first")
    assert files(found.path) == before
    assert [checkpoint.step for checkpoint in list_checkpoints(found)] == [20]


def test_the_newest_of_a_name_comes_back_and_never_over_another(workspace: Workspace) -> None:
    for text in ("older", "newer"):
        add_dataset(workspace, "notes")
        (workspace.datasets / "notes" / "mark").write_text(text)
        delete_dataset(workspace, "notes")
    restore(workspace, find_thrown(workspace, "notes"))
    assert (workspace.datasets / "notes" / "mark").read_text() == "newer"
    with pytest.raises(UserError, match="another 'notes'"):
        restore(workspace, find_thrown(workspace, "datasets/notes"))
    with pytest.raises(UserError, match=r"no 'nots' in the bin.*Did you mean 'notes'"):
        find_thrown(workspace, "nots")
    destroy(find_thrown(workspace, "notes"))
    assert list_bin(workspace) == []


def test_what_another_has_deleted_meanwhile_is_done_and_does_not_come_back(workspace: Workspace) -> None:
    for name in ("one", "two"):
        add_dataset(workspace, name)
        delete_dataset(workspace, name)
    thrown = list_bin(workspace)
    assert destroy_all(thrown[:1]) == []
    assert destroy_all(thrown) == []
    assert list_bin(workspace) == [] and thrown[0].bytes() == 0
    with pytest.raises(UserError, match="no longer in the bin"):
        restore(workspace, thrown[0])


def test_what_is_being_deleted_cannot_be_taken_back(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    add_dataset(workspace, "notes")
    delete_dataset(workspace, "notes")
    (thrown,) = list_bin(workspace)
    seen: list[object] = []

    def remove(folder: Path, **_: object) -> None:
        seen.append(list_bin(workspace))
        with pytest.raises(UserError, match="no longer in the bin"):
            restore(workspace, thrown)
        remove_tree(folder)

    remove_tree = shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", lambda folder, **options: remove(folder) if not seen else None)
    destroy(thrown)
    assert seen == [[]] and list((workspace.bin / "datasets").iterdir()) == []


def test_what_cannot_be_deleted_is_told_and_shields_nothing_else(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "stubborn", "last"):
        add_dataset(workspace, name)
        delete_dataset(workspace, name)
    remove_tree = shutil.rmtree

    def remove(folder: Path, ignore_errors: bool = False) -> None:
        if "stubborn" not in Path(folder).name:
            remove_tree(folder, ignore_errors=ignore_errors)
        elif not ignore_errors:
            raise PermissionError(errno.EPERM, "Operation not permitted", str(folder))

    monkeypatch.setattr(shutil, "rmtree", remove)
    (error,) = destroy_all(list_bin(workspace))
    assert "stubborn is not deleted as a whole: operation not permitted." in str(error)
    (left,) = (workspace.bin / "datasets").iterdir()
    assert str(left) in error.hint and list_bin(workspace) == []


def test_a_folder_that_cannot_be_written_is_deleted_too(workspace: Workspace) -> None:
    add_dataset(workspace, "notes")
    inner = workspace.datasets / "notes" / "records"
    inner.mkdir(exist_ok=True)
    (inner / "one").touch()
    inner.chmod(0o555)
    delete_dataset(workspace, "notes")
    destroy(*list_bin(workspace))
    assert list((workspace.bin / "datasets").iterdir()) == []


def test_deleting_finishes_what_a_killed_one_has_left(workspace: Workspace) -> None:
    add_dataset(workspace, "notes")
    delete_dataset(workspace, "notes")
    (thrown,) = list_bin(workspace)
    stray = temporary_beside(thrown.path)
    (stray / "records").mkdir(parents=True)
    destroy(thrown)
    assert not stray.exists()


def test_a_folder_on_another_disk_is_one_sentence(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    run = add_run(workspace, "pretrain", "first")

    def elsewhere(self: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    with monkeypatch.context() as patch, pytest.raises(UserError, match="different disks"):
        patch.setattr(Path, "rename", elsewhere)
        delete_run(workspace, "first")
    assert find_run(workspace, "first").id == run.id


def test_the_run_that_was_meant_is_deleted_whatever_has_its_name_by_now(workspace: Workspace) -> None:
    meant = add_run(workspace, "sample", "first")
    other = add_run(workspace, "sample", "first", created=1_900_000_000.0)
    delete_run(workspace, "first", meant)
    assert [run.id for run in list_runs(workspace)] == [other.id]
