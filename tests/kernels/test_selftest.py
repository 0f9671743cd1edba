"""The kernels are tried before they are used; what was found is remembered; what fails is switched off."""

from __future__ import annotations

import importlib
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kernels import choice, selftest
from kernels.selftest import Trial
from tests.kernels.groups import ROOT

CPU = torch.device("cpu")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, int]]:
    """The trials that were really made, on a fake card that bf16 breaks."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made: list[tuple[str, int]] = []

    def trial(device: torch.device, dtype: str, width: int, kernel: str) -> Trial:
        made.append((dtype, width))
        return Trial(dtype, width, 1e-4, 1.5, "" if dtype == "float16" else "it hung", kernel)

    monkeypatch.setattr(selftest, "in_a_child", trial)
    selftest.trial.cache_clear()
    yield made
    selftest.trial.cache_clear()


def test_a_trial_is_made_once_and_remembered_by_later_processes(asked: list[tuple[str, int]]) -> None:
    for _ in range(2):
        assert selftest.verdict(CPU, torch.float16, 64) == ""
        assert "bfloat16 heads of 64 columns failed on this card: it hung" in selftest.verdict(CPU, torch.bfloat16, 64)
        selftest.trial.cache_clear()
    assert asked == [("float16", 64), ("bfloat16", 64)]


def test_the_loss_has_a_trial_of_its_own(asked: list[tuple[str, int]]) -> None:
    for kernel in ("attention", "linear_cross_entropy", "attention", "linear_cross_entropy"):
        assert selftest.verdict(CPU, torch.float16, 0, kernel) == ""
        selftest.trial.cache_clear()
    assert len(asked) == 2
    assert "bfloat16 linear_cross_entropy failed" in selftest.verdict(CPU, torch.bfloat16, 0, "linear_cross_entropy")


def test_another_driver_or_version_asks_again(asked: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    selftest.verdict(CPU, torch.float16, 64)
    selftest.trial.cache_clear()
    monkeypatch.setattr(selftest, "version", lambda package: "99.0")
    selftest.verdict(CPU, torch.float16, 64)
    assert len(asked) == 2


@pytest.mark.parametrize("text", ["", "{", "[]", '{"float16 64": [1]}', '{"float16 64": 3}'])
def test_a_spoilt_file_is_no_obstacle(asked: list[tuple[str, int]], tmp_path: Path, text: str) -> None:
    path = tmp_path / "workbench" / "kernels" / f"selftest-{selftest.fingerprint(CPU)}.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert selftest.verdict(CPU, torch.float16, 64) == ""
    assert len(asked) == 1


def test_a_cache_that_cannot_be_written_is_no_obstacle(
    asked: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert selftest.verdict(CPU, torch.float16, 64) == ""


def test_a_child_that_breaks_is_a_finding() -> None:
    found = selftest.in_a_child(CPU, "float16", 64)  # a process without interpreter: nothing can run on the CPU
    assert not found.passed
    assert found.fault


def test_a_right_kernel_passes_and_a_wrong_one_is_named() -> None:
    command = [sys.executable, "-W", "ignore", "-m", "tests.kernels.trial_of_wrong_kernels"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["attention"]["passed"] and found["attention"]["error"] < 0.01
    assert found["loss"]["passed"] and found["loss"]["error"] < 0.01
    assert [found[name]["passed"] for name in ("too_large", "blind", "broken", "wrong_loss")] == [False] * 4
    assert "an error of 2.0e-01" in found["too_large"]["sentence"]
    assert "RuntimeError: no such instruction" in found["broken"]["sentence"]


def test_without_a_gpu_the_command_says_so() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kernels.selftest"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    if not torch.cuda.is_available():
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "no GPU" in done.stderr


def test_a_failed_trial_sends_calls_to_pytorch_with_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    door = importlib.import_module("kernels.attention")
    monkeypatch.setattr(door, "_chosen", {})
    monkeypatch.setattr(choice, "rows", {})
    monkeypatch.delenv("WORKBENCH_ATTENTION", raising=False)
    choice.say_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        for few in (True, False):
            kind = ("attention", torch.device("cuda"), torch.bfloat16, few, True, "its self-test failed")
            assert door._choose(kind).__name__ == "kernels.sdpa"
    assert [record.getMessage() for record in caplog.records] == [
        "Attention goes through PyTorch rather than Triton: its self-test failed."
    ]
    assert {row.why for row in choice.rows.values()} == {"PyTorch's fused attention; not triton: its self-test failed"}


def test_on_a_gpu_what_nothing_hinders_goes_to_triton() -> None:
    door = importlib.import_module("kernels.attention")
    for call in ("attention", "attention_packed", "attention_decode"):
        assert door._measured(call, torch.device("cuda"), True, True, "")[0] == "triton"


def test_what_triton_does_not_take_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    door = importlib.import_module("kernels.attention")
    monkeypatch.setattr(door, "INTERPRETED", True)
    monkeypatch.setattr(door, "_obstacle_on", lambda *_: "")
    q = torch.zeros(1, 2, 4, 32)
    bias = torch.zeros(4, 4)

    def obstacle(*inputs: object, call: str = "attention") -> str:
        return door._obstacle(call, *inputs)

    assert obstacle(q, q, q, None, bias) == ""
    assert "bias" in obstacle(q, q, q, None, bias.requires_grad_())
    with torch.no_grad():
        assert obstacle(q, q, q, None, bias) == ""
    assert "dropout" in obstacle(q, q, q, None, None, 0.1)
    assert "scale" in obstacle(q, q, q, -1.0)
    assert "dtypes" in obstacle(q, q.double(), q.double(), None)
    assert "decoding" in obstacle(q[:, :, 0].requires_grad_(), q, q, None, call="attention_decode")
