"""The verbs of a training loop: the device that is set up, determinism, the schedule, divergence, files' modes."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.loop import Divergence, Progress, any_algorithms, cosine_lr, log_interval, set_up_torch
from stages.models.tensors import save_tensors
from stages.run import Run
from stages.store.errors import WorkFailed
from stages.store.rundir import RunSpec, create_run
from stages.store.workspace import Workspace


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    threads = torch.get_num_threads()
    workspace = Workspace(tmp_path / "ws").ensure()
    yield Run(create_run(workspace, RunSpec(stage="pretrain", name="one", settings={}, threads=1)).path)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def test_a_deterministic_run_sets_what_cublas_needs_before_its_first_product(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that it is put back as it was
    del os.environ["CUBLAS_WORKSPACE_CONFIG"]
    set_up_torch(run, deterministic=True)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert torch.are_deterministic_algorithms_enabled()
    with any_algorithms():
        assert not torch.are_deterministic_algorithms_enabled()
    assert torch.are_deterministic_algorithms_enabled()


def test_the_recorded_threads_are_used(run: Run) -> None:
    torch.set_num_threads(2)
    set_up_torch(run, deterministic=False)
    assert torch.get_num_threads() == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch can use a GPU here")
def test_a_gpu_that_torch_cannot_use_is_said_rather_than_the_cpu_taken(run: Run) -> None:
    run.state.device = "GPU-1234"
    with pytest.raises(WorkFailed, match="torch cannot use"):
        set_up_torch(run, deterministic=False)
    run.state.device = "cpu"
    assert set_up_torch(run, deterministic=False).type == "cpu"


def test_the_rate_rises_to_its_peak_and_falls_to_its_floor() -> None:
    rates = [cosine_lr(step, peak=1.0, floor=0.1, warmup=10, total=110) for step in range(111)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates[60] == pytest.approx(0.55)
    assert rates[110] == pytest.approx(0.1)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)


@given(st.integers(1, 10**8), st.integers(1, 1_000))
def test_a_run_of_any_length_logs_about_100_000_rows_at_most(total: int, asked: int) -> None:
    assert log_interval(asked, total) == max(asked, math.ceil(total / 100_000))


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (2.0, math.nan), (2.0, math.inf)])
def test_what_is_not_finite_ends_training_at_once(loss: float, norm: float) -> None:
    progress = Progress(lr=1.0, precision="fp32")
    divergence = Divergence(progress)
    divergence.watch(1, 2.0, 1.0)
    with pytest.raises(WorkFailed, match="at step 2"):
        divergence.watch(2, loss, norm)
    assert progress.smoothed == 2.0


def test_a_rising_loss_is_suspicious_before_it_has_exploded_and_noise_is_neither() -> None:
    progress = Progress(lr=1.0, precision="fp32")
    divergence = Divergence(progress)
    for step in range(100):
        divergence.watch(step, 2.0 + (step % 2), 1.0)
        assert not divergence.suspicious()
    seen = []
    with pytest.raises(WorkFailed, match="exploded"):
        for step in range(100, 200):
            divergence.watch(step, 8.0, 1.0)
            seen.append(divergence.suspicious())
    assert seen[-1] and len(seen) < 10
    with pytest.raises(WorkFailed, match="validation loss became nan at step 7"):
        divergence.watch_validation(7, math.nan)


def test_tensors_get_the_permissions_that_other_files_get(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        save_tensors({"a": torch.zeros(3)}, tmp_path / "a.safetensors")
        (tmp_path / "other").write_bytes(b"")
    finally:
        os.umask(before)
    modes = [path.stat().st_mode & 0o777 for path in (tmp_path / "a.safetensors", tmp_path / "other")]
    assert modes == [0o640, 0o640]


def test_a_disk_that_refuses_tensors_tells_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError) as caught:
        save_tensors({"a": torch.zeros(3)}, tmp_path / "none" / "a.safetensors")
    assert caught.value.errno is not None
