"""SwiGLU and rotary positions: PyTorch against the reference, the Triton kernels in the interpreter, the switch."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from benchmarks import traffic
from kernels import choice, reference, rotary, swiglu, triton_elementwise
from tests.kernels.groups import GROUPS, measure, wrong
from tests.kernels.places import PLACES
from tests.kernels.test_attention import draw, with_gradients

door = importlib.import_module("kernels.elementwise")
COUNTS = GROUPS["elementwise_cases"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("group", COUNTS)
def test_the_kernels_are_as_exact_as_pytorch(group: str, place: str) -> None:
    outcomes = measure(group, "elementwise_cases", place == "gpu")
    assert len(outcomes) == COUNTS[group] * (1 if place == "interpreter" else 2)
    assert wrong(outcomes, "elementwise_cases") == {}


def tables(T: int, D: int) -> tuple[Tensor, Tensor]:
    angles = draw(T, 1, D // 2)
    return torch.cat((angles.cos(), angles.cos()), -1), torch.cat((-angles.sin(), angles.sin()), -1)


def test_pytorch_gives_what_the_reference_gives() -> None:
    x, turned = draw(6, 10), draw(2, 5, 3, 8)
    cos, sin = tables(5, 8)
    pairs = [
        (with_gradients(swiglu, [x]), with_gradients(reference.swiglu, [x])),
        (with_gradients(rotary, [turned], cos=cos, signed_sin=sin),
         with_gradients(reference.rotary, [turned], cos=cos, signed_sin=sin)),
    ]  # fmt: skip
    for ours, right in pairs:
        assert all(torch.allclose(a, b) for a, b in zip(ours, right, strict=True))


def test_a_turn_keeps_lengths_and_shifts_with_positions() -> None:
    """The product of a query and a key depends on their distance alone (Su et al. 2021, eq. 16)."""
    angles = torch.arange(9.0, dtype=torch.float64)[:, None, None] * torch.tensor([1.0, 0.3])
    cos, sin = torch.cat((angles.cos(),) * 2, -1), torch.cat((-angles.sin(), angles.sin()), -1)
    q, k = (draw(1, 1, 1, 4, seed=seed).expand(1, 9, 1, 4) for seed in (0, 1))
    q, k = rotary(q, cos, sin)[0, :, 0], rotary(k, cos, sin)[0, :, 0]
    products = q @ k.T
    assert torch.allclose(products.diagonal(2), products[0, 2])
    assert torch.allclose(q.norm(dim=-1), q[0].norm())


def test_the_kernels_move_less_than_half_of_what_pytorch_moves() -> None:
    """What makes them worth a file, as counted in `kernels/elementwise.py`."""
    for layer in traffic.LAYERS:
        counted = traffic.operations(layer)
        for name in ("SwiGLU", "rotary"):
            torch_bytes, ours = counted[name]
            assert 0 < ours < torch_bytes / 2


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="2F"):
        swiglu(torch.zeros(3, 5))
    with pytest.raises(ValueError, match="5 columns"):
        rotary(torch.zeros(1, 2, 3, 5), torch.zeros(2, 1, 5), torch.zeros(2, 1, 5))


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Doors that lead to Triton, as on a GPU whose self-test passed, where every launch fails; who launched."""
    launched: list[str] = []

    class Kernel:
        def __init__(self, name: str) -> None:
            self.name = name

        def __getitem__(self, grid: object) -> object:
            launched.append(self.name)
            raise RuntimeError("no kernel image\nfor this card")

    for name in ("swiglu_forward", "swiglu_backward", "turn"):
        monkeypatch.setattr(triton_elementwise, name, Kernel(name))
    monkeypatch.setattr(door, "_chosen", {})
    monkeypatch.setattr(door, "INTERPRETED", True)
    monkeypatch.setattr(door, "_obstacle_on", lambda *_: "")
    monkeypatch.setattr(choice, "rows", {})
    monkeypatch.setattr(choice, "_failed", {})
    monkeypatch.delenv("WORKBENCH_ELEMENTWISE", raising=False)
    choice.say_once.cache_clear()
    yield launched
    choice.say_once.cache_clear()


def test_a_kernel_that_fails_at_work_is_switched_off_and_pytorch_goes_on(
    broken: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    x, turned = draw(6, 10), draw(2, 5, 3, 8)
    cos, sin = tables(5, 8)
    for _ in range(2):
        assert torch.allclose(swiglu(x), reference.swiglu(x))
        assert torch.allclose(rotary(turned, cos, sin), reference.rotary(turned, cos, sin))
    assert broken == ["swiglu_forward", "turn"]
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split(" for ")[0] for line in lines] == ["The fused swiglu", "The fused rotary"]
    assert all("switched off" in line and "no kernel image" in line and "\n" not in line for line in lines)


def test_a_backward_kernel_that_fails_at_work_leaves_the_right_gradient(
    broken: list[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, turned = draw(6, 10), draw(2, 5, 3, 8)
    cos, sin = tables(5, 8)
    right = with_gradients(reference.rotary, [turned], cos=cos, signed_sin=sin)[1]

    class Silent:
        def __getitem__(self, grid: object) -> object:
            return lambda *arguments, **options: None

    monkeypatch.setattr(triton_elementwise, "swiglu_forward", Silent())
    assert torch.allclose(with_gradients(swiglu, [x])[1], with_gradients(reference.swiglu, [x])[1])
    with monkeypatch.context() as forward_works:
        forward_works.setattr(triton_elementwise, "turn", Silent())
        leaf = turned.clone().requires_grad_()
        out = rotary(leaf, cos, sin)
    out.backward(draw(*out.shape, seed=9))
    assert torch.allclose(leaf.grad, right)
    assert broken == ["swiglu_backward", "turn"]
    assert len(caplog.records) == 2


def test_the_environment_names_a_backend(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(door, "_chosen", {})
    choice.say_once.cache_clear()
    monkeypatch.setenv("WORKBENCH_ELEMENTWISE", "triton")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            swiglu(draw(2, 4))
    assert len(caplog.records) == 1
    assert "passed over: its kernels are for GPUs" in caplog.text
    choice.say_once.cache_clear()
