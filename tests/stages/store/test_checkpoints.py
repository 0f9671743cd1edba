"""A checkpoint that is listed is complete, and one that is loaded was verified."""

import random
from pathlib import Path

import msgspec
import pytest

from stages.store import files
from stages.store.checkpoints import (
    LINEAGE,
    Checkpoint,
    Lineage,
    best_checkpoint,
    latest_verified,
    list_checkpoints,
    prune,
    resolve_checkpoint,
    step_of,
    verify,
    write_checkpoint,
)
from stages.store.errors import UserError
from stages.store.rundir import RunDir, RunSpec, create_run
from stages.store.workspace import Workspace


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    workspace = Workspace(tmp_path / "ws").ensure()
    return create_run(workspace, RunSpec(stage="pretrain", name="one", settings={}))


def save(run: RunDir, step: int, loss: float | None = None) -> Path:
    def fill(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(random.Random(step).randbytes(4_000))
        (folder / "resume").mkdir()
        (folder / "resume" / "progress.json").write_bytes(b"{}")
        metrics = {} if loss is None else {"val/loss": loss}
        lineage = Lineage(stage="pretrain", run=run.id, name="one", step=step, metrics=metrics)
        (folder / LINEAGE).write_bytes(msgspec.json.encode(lineage))

    return write_checkpoint(run.checkpoints / f"step-{step}", fill).path


def test_half_a_checkpoint_is_not_listed(run: RunDir) -> None:
    save(run, 1)

    def fill(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        write_checkpoint(run.checkpoints / "step-2", fill)
    assert [c.step for c in list_checkpoints(run)] == [1]
    assert [p.name for p in run.checkpoints.iterdir()] == ["step-1"]


def test_every_flipped_bit_and_every_truncation_is_refused(run: RunDir) -> None:
    damage(run, 20)


@pytest.mark.soak
def test_a_thousand_flipped_bits_and_truncations_are_refused(run: RunDir) -> None:
    damage(run, 1_000)


def damage(run: RunDir, trials: int) -> None:
    """Flip a bit and cut a file short in turns; each time the checkpoint is refused and the one before it stays."""
    save(run, 1)
    path = save(run, 2)
    files = [p for p in path.rglob("*") if p.is_file() and p.name != "manifest.json"]
    dice = random.Random(0)
    for trial in range(trials):
        file = dice.choice(files)
        content = file.read_bytes()
        if trial % 2:
            place = dice.randrange(len(content))
            damaged = bytearray(content)
            damaged[place] ^= 1 << dice.randrange(8)
            file.write_bytes(bytes(damaged))
        else:
            file.write_bytes(content[: dice.randrange(len(content))])
        with pytest.raises(UserError, match=file.name):
            verify(path)
        found, refused = latest_verified(run)
        assert found is not None
        assert found.step == 1
        # A truncated one is not even listed; a flipped bit is found by its digest and named.
        assert len(refused) == trial % 2
        file.write_bytes(content)
    verify(path)


def test_the_last_two_and_the_best_are_kept(run: RunDir) -> None:
    for step, loss in ((1, 3.0), (2, 1.0), (3, 2.0), (4, 2.5), (5, 2.6)):
        save(run, step, loss)
        prune(run)
    assert [c.step for c in list_checkpoints(run)] == [2, 4, 5]
    best = best_checkpoint(run)
    assert best is not None
    assert best.step == 2


def test_nothing_is_deleted_while_the_newest_are_damaged(run: RunDir) -> None:
    for step in (1, 2, 3):
        save(run, step)
    for step in (2, 3):
        file = run.checkpoints / f"step-{step}" / "model.safetensors"
        file.write_bytes(bytes(4_000))
    assert prune(run) == []
    assert [c.step for c in list_checkpoints(run)] == [1, 2, 3]


def test_a_checkpoint_is_called_as_people_find_it(run: RunDir, tmp_path: Path) -> None:
    save(run, 1)
    (saved,) = list_checkpoints(run)
    assert (saved.title(), saved.trained()) == ("one@1", 1)
    (foreign := tmp_path / "bought").mkdir()
    assert (Checkpoint(foreign, 0).title(), Checkpoint(foreign, 0).trained()) == ("bought", 0)


def test_checkpoints_are_found_as_people_name_them(run: RunDir) -> None:
    workspace = Workspace(run.path.parent.parent)
    for step in (10, 20):
        save(run, step)
    assert resolve_checkpoint(workspace, "one").step == 20
    assert resolve_checkpoint(workspace, "one@10").step == 10
    assert resolve_checkpoint(workspace, str(run.checkpoints / "step-10")).step == 10
    with pytest.raises(UserError, match="It has: 10, 20"):
        resolve_checkpoint(workspace, "one@15")


@pytest.mark.parametrize("content", [b"", b"{", b'{"files": 3}', b"\xff"])
def test_a_damaged_manifest_is_refused_by_name(run: RunDir, content: bytes) -> None:
    path = save(run, 1)
    (path / "manifest.json").write_bytes(content)
    with pytest.raises(UserError, match=r"manifest\.json cannot be read"):
        verify(path)


def test_a_file_that_is_missing_is_named(run: RunDir) -> None:
    path = save(run, 1)
    (path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model\.safetensors is missing"):
        verify(path)


def test_an_old_checkpoint_whose_lineage_is_damaged_does_not_end_training(run: RunDir) -> None:
    lineage = save(run, 1, 1.0) / LINEAGE
    lineage.write_bytes(b"?" * lineage.stat().st_size)  # of the same size: still listed
    for step in (2, 3, 4):
        save(run, step, float(step))
        prune(run)
    best = best_checkpoint(run)
    assert best is not None
    assert best.step == 2
    assert [c.step for c in list_checkpoints(run)] == [2, 3, 4]


def test_a_kill_while_an_old_checkpoint_is_deleted_leaves_a_stray_alone(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2, 3):
        save(run, step)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            prune(run)
    assert [c.step for c in list_checkpoints(run)] == [2, 3]
    files.settle(run.checkpoints)
    assert sorted(p.name for p in run.checkpoints.iterdir()) == ["step-2", "step-3"]


@pytest.mark.parametrize("name", ["step-²", "step-", "step--1", "step-1.5"])
def test_a_folder_that_only_looks_like_a_step_has_none(tmp_path: Path, name: str) -> None:
    assert step_of(tmp_path / name) == 0


def test_a_folder_of_an_unknown_user_is_one_sentence(run: RunDir) -> None:
    with pytest.raises(UserError, match="no such user"):
        resolve_checkpoint(Workspace(run.path.parent.parent), "~nobody-of-that-name/model")
