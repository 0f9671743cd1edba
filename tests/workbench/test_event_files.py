"""TensorBoard's own reader opens what is written."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stages.store.errors import WorkFailed
from stages.store.rundir import RunDir
from stages.store.workspace import Workspace
from tests.workbench.conftest import add_run
from workbench.board.event_files import EventFile
from workbench.cli.root import run as command


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "ws"))
    made = add_run(Workspace(tmp_path / "ws").ensure(), "pretrain", "first")
    append(made, *({"step": n, "time": 1e9 + n, "train/loss": 5 - n, "note": "x", "ok": True} for n in range(4)))
    return made


def append(run: RunDir, *rows: dict[str, object]) -> None:
    with run.metrics.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def scalars(folder: Path, tag: str = "train/loss") -> list[tuple[int, float]]:
    found = EventAccumulator(str(folder))
    found.Reload()
    return [(event.step, event.value) for event in found.Scalars(tag)]


def test_scalars_come_out_as_they_were_logged(run: RunDir, tmp_path: Path) -> None:
    assert command(["runs", "tensorboard", str(tmp_path / "out")]) == 0
    assert scalars(tmp_path / "out" / "first") == [(n, 5.0 - n) for n in range(4)]
    found = EventAccumulator(str(tmp_path / "out" / "first"))
    found.Reload()
    assert found.Tags()["scalars"] == ["train/loss"]
    assert found.Scalars("train/loss")[2].wall_time == 1e9 + 2


def test_rows_that_were_taken_back_do_not_count(run: RunDir, tmp_path: Path) -> None:
    file = EventFile(run, tmp_path / "out")
    assert file.update() == 4
    append(run, {"rewind_to": 1}, {"step": 2, "time": 1e9 + 9, "train/loss": 9.5})
    assert file.update() == 1
    file.close()
    assert scalars(tmp_path / "out") == [(0, 5.0), (1, 4.0), (2, 9.5)]
    assert command(["runs", "tensorboard", str(tmp_path / "out"), "first"]) == 0
    assert scalars(tmp_path / "out" / "first") == [(0, 5.0), (1, 4.0), (2, 9.5)]


def test_a_second_export_replaces_the_first(run: RunDir, tmp_path: Path) -> None:
    for _ in range(2):
        EventFile(run, tmp_path / "out").update()
    assert len(list((tmp_path / "out").iterdir())) == 1
    assert len(scalars(tmp_path / "out")) == 4


def test_runs_of_one_name_have_folders_of_their_own(run: RunDir, tmp_path: Path) -> None:
    other = add_run(Workspace(tmp_path / "ws"), "evaluate", "first")
    append(other, {"step": 1, "time": 1e9, "train/loss": 7.0})
    assert command(["runs", "tensorboard", str(tmp_path / "out")]) == 0
    assert scalars(tmp_path / "out" / run.id) == [(n, 5.0 - n) for n in range(4)]
    assert scalars(tmp_path / "out" / other.id) == [(1, 7.0)]
    assert command(["runs", "tensorboard", str(tmp_path / "twice"), run.id, run.id]) == 0
    assert len(scalars(tmp_path / "twice" / "first")) == 4


def test_a_figure_too_large_for_the_format_is_infinite(run: RunDir, tmp_path: Path) -> None:
    append(run, {"step": 4, "time": 1e9, "train/loss": 1e300}, {"step": 5, "time": 1e9, "train/loss": -1e300})
    EventFile(run, tmp_path / "out").update()
    assert scalars(tmp_path / "out")[-2:] == [(4, math.inf), (5, -math.inf)]


def test_a_full_disk_is_one_sentence(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    file = EventFile(run, Path("/dev"))
    monkeypatch.setattr(file, "_open", partial(Path("/dev/full").open, "wb"))
    with pytest.raises(WorkFailed, match="is full"):
        file.update()
    with pytest.raises(WorkFailed, match="is full"):
        file.close()
