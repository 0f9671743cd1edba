"""A kernel that fails at work, after it passed its self-test, is switched off with one line; training goes on."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from kernels import (
    attention,
    attention_decode,
    attention_packed,
    choice,
    linear_cross_entropy,
    reference,
    sdpa,
    triton_backend,
    triton_cross_entropy,
)
from tests.kernels.test_attention import draw, with_gradients

attention_door = importlib.import_module("kernels.attention")
loss_door = importlib.import_module("kernels.linear_cross_entropy")
TARGETS = torch.tensor([3, -100, 0, 6])


class Trial:
    """Stands for kernels that work or raise, as told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.broken: set[str] = set()
        self.asked: list[str] = []
        self.error: Exception = RuntimeError("out of resource: shared memory\nRequired: 300000")
        for name, right in {"_forward": self.attention_forward, "_backward": self.attention_backward}.items():
            monkeypatch.setattr(triton_backend, name, self.watched(f"attention{name}", right))
        monkeypatch.setattr(triton_backend, "attention_decode", self.watched("decode", sdpa.attention_decode))
        monkeypatch.setattr(triton_cross_entropy, "_forward", self.watched("loss_forward", self.loss_forward))
        monkeypatch.setattr(triton_cross_entropy, "_backward", self.watched("loss_backward", lambda *_: (None, None)))

    def watched(self, name: str, right: Callable[..., Any]) -> Callable[..., Any]:
        def kernel(*inputs: Any, **options: Any) -> Any:
            self.asked.append(name)
            if name in self.broken:
                raise self.error
            return right(*inputs, **options)

        return kernel

    @staticmethod
    def attention_forward(*inputs: Any) -> tuple[Tensor, Tensor]:
        q, k, v, bias, _, documents, causal, window, scale = inputs
        if documents is not None:
            rows = [x[0].transpose(0, 1) for x in (q, k, v)]
            out = reference.attention_packed(*rows, documents, causal=causal, window=window, scale=scale)
            return out.transpose(0, 1)[None], q.new_zeros(q.shape[:3])
        return reference.attention(q, k, v, causal=causal, window=window, bias=bias, scale=scale), q.new_zeros(
            q.shape[:3]
        )

    @staticmethod
    def attention_backward(*inputs: Any) -> tuple[Tensor, ...]:
        return tuple(x + 1 for x in inputs[:3])

    @staticmethod
    def loss_forward(h: Tensor, weight: Tensor, targets: Tensor, ignored: int) -> tuple[Tensor, Tensor]:
        logits = h @ weight.T
        return logits.logsumexp(-1), logits.gather(1, targets.clamp(min=0)[:, None])[:, 0]


@pytest.fixture
def trial(monkeypatch: pytest.MonkeyPatch) -> Iterator[Trial]:
    """Doors that lead to Triton, as on a GPU whose self-test passed."""
    for door in (attention_door, loss_door):
        monkeypatch.setattr(door, "_chosen", {})
        monkeypatch.setattr(door, "INTERPRETED", True)
        monkeypatch.setattr(door, "_obstacle_on", lambda *_: "")
    monkeypatch.setattr(choice, "rows", {})
    monkeypatch.setattr(choice, "_failed", {})
    monkeypatch.setenv("WORKBENCH_ATTENTION", "triton")
    monkeypatch.setenv("WORKBENCH_CROSS_ENTROPY", "triton")
    choice.say_once.cache_clear()
    yield Trial(monkeypatch)
    choice.say_once.cache_clear()


def switched_off(log: pytest.LogCaptureFixture) -> list[str]:
    return [text for record in log.records if "switched off" in (text := record.getMessage())]


def qkv() -> list[Tensor]:
    return [draw(2, 2, 5, 16, seed=i).float() for i in range(3)]


def packed(*tensors: Tensor) -> Tensor:
    return attention_packed(*tensors, torch.tensor([0, 2, 5, 5]), causal=True, window=2)


def packed_truth(*tensors: Tensor) -> Tensor:
    return reference.attention_packed(*tensors, torch.tensor([0, 2, 5, 5]), causal=True, window=2)


def decode(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    with torch.no_grad():
        return attention_decode(q[:, :, 0], k, v, torch.tensor([2, 5]))


@pytest.mark.parametrize("broken", ["attention_forward", "attention_backward"])
@pytest.mark.parametrize("kind", ["padded", "packed"])
def test_attention_that_fails_at_work_goes_on_in_pytorch(
    trial: Trial, caplog: pytest.LogCaptureFixture, broken: str, kind: str
) -> None:
    trial.broken = {broken}
    function, truth, tensors = attention, reference.attention, qkv()
    if kind == "packed":
        function, truth, tensors = packed, packed_truth, [x[0].transpose(0, 1) for x in tensors]
    for _ in range(3):
        found = with_gradients(function, tensors)
        for ours, right in zip(found, with_gradients(truth, tensors), strict=True):
            assert torch.allclose(ours, right, atol=1e-5)
    tries = 1 if kind == "padded" else 2  # packed documents go on one by one, which is another kernel
    assert trial.asked.count(broken) == len(switched_off(caplog)) == tries
    for line in switched_off(caplog):
        assert "float32 of 16 columns" in line and "out of resource: shared memory" in line and "\n" not in line


def test_decoding_that_fails_at_work_goes_on_in_pytorch(trial: Trial, caplog: pytest.LogCaptureFixture) -> None:
    trial.broken = {"decode"}
    q, k, v = qkv()
    right = reference.attention_decode(q[:, :, 0], k, v, torch.tensor([2, 5]))
    for _ in range(2):
        assert torch.allclose(decode(q, k, v), right, atol=1e-5)
    assert trial.asked == ["decode"]
    assert len(switched_off(caplog)) == 1


@pytest.mark.parametrize("broken", ["loss_forward", "loss_backward"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_loss_that_fails_at_work_goes_on_in_pytorch(
    trial: Trial, caplog: pytest.LogCaptureFixture, broken: str, reduction: str
) -> None:
    trial.broken = {broken}
    h, weight = draw(4, 8).float(), draw(7, 8).float()

    def right(h: Tensor, weight: Tensor) -> Tensor:
        losses = reference.linear_cross_entropy(h, weight, TARGETS, z_loss=0.1)
        return losses if reduction == "none" else losses.sum() / 3

    def ours(h: Tensor, weight: Tensor) -> Tensor:
        return linear_cross_entropy(h, weight, TARGETS, z_loss=0.1, reduction=reduction)

    for _ in range(3):
        for a, b in zip(with_gradients(ours, [h, weight]), with_gradients(right, [h, weight]), strict=True):
            assert torch.allclose(a, b, atol=1e-5)
    assert trial.asked.count(broken) == 1
    assert len(switched_off(caplog)) == 1


def test_other_widths_dtypes_and_calls_stay_on(trial: Trial) -> None:
    trial.broken = {"attention_forward"}
    q, k, v = qkv()
    attention(q, k, v)
    trial.broken.clear()
    trial.asked.clear()
    attention(q, k, v)
    assert trial.asked == []
    attention(q[..., :8], k[..., :8], v[..., :8])
    attention(q.double(), k.double(), v.double())
    packed(*(x[0].transpose(0, 1) for x in (q, k, v)))
    assert trial.asked == ["attention_forward"] * 3


def test_full_memory_is_not_blamed_on_the_kernel(trial: Trial, caplog: pytest.LogCaptureFixture) -> None:
    trial.broken, trial.error = {"attention_forward"}, torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(torch.OutOfMemoryError):
        attention(*qkv())
    trial.broken.clear()
    attention(*qkv())
    assert trial.asked == ["attention_forward"] * 2
    assert switched_off(caplog) == []


def test_the_self_test_and_others_who_ask_the_kernels_themselves_see_the_error(trial: Trial) -> None:
    trial.broken = {"attention_backward", "loss_backward"}
    with pytest.raises(RuntimeError, match="out of resource"):
        with_gradients(triton_backend.attention, qkv())
    with pytest.raises(RuntimeError, match="out of resource"):
        triton_cross_entropy.losses(
            draw(4, 8).float().requires_grad_(), draw(7, 8).float(), TARGETS, -100, 0.0
        ).sum().backward()


def test_the_report_tells_what_was_switched_off(trial: Trial, caplog: pytest.LogCaptureFixture) -> None:
    trial.broken = {"attention_forward"}
    with caplog.at_level(logging.WARNING):
        attention(*qkv())
        attention(*qkv())
    served = {row.backend for row in choice.rows.values()}
    assert served == {"triton", "plain"}
    passed_over = [text for record in caplog.records if "passed over" in (text := record.getMessage())]
    assert passed_over == [
        "WORKBENCH_ATTENTION=triton is passed over: it failed at work (RuntimeError: out of resource: shared memory)."
    ]
