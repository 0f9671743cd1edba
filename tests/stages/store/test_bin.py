"""What is deleted can be taken back, byte for byte, until the bin is emptied."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.store.bin import destroy, find_thrown, list_bin, restore
from stages.store.checkpoints import list_checkpoints
from stages.store.errors import UserError
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
