"""Linear + cross-entropy: its backends on the CPU against the reference, its Triton kernels in the interpreter."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from kernels import choice, chunked_cross_entropy, linear_cross_entropy, reference
from tests.kernels.groups import GROUPS, ROOT, measure, wrong
from tests.kernels.places import PLACES
from tests.kernels.test_attention import draw, with_gradients

door = importlib.import_module("kernels.linear_cross_entropy")
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
CHUNK = 200
"""Logits at a time, so that small calls come in several chunks."""


@pytest.fixture(params=["whole", "chunked"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(door, "_chosen", {})
    monkeypatch.setattr(choice, "rows", {})
    monkeypatch.setenv("WORKBENCH_CROSS_ENTROPY", request.param)
    monkeypatch.setattr(chunked_cross_entropy, "AT_ONCE", CHUNK)
    return request.param


def targets(N: int, V: int, ignored: int = 0, label: int = -100) -> Tensor:
    found = torch.randint(0, V, (N,), generator=torch.Generator().manual_seed(N))
    found[:ignored] = label
    return found


def truth(h: Tensor, weight: Tensor, targets_N: Tensor, reduction: str, **options: float) -> Tensor:
    losses = reference.linear_cross_entropy(h, weight, targets_N, **options)
    count = (targets_N != options.get("ignored", -100)).sum().clamp(min=1)
    return losses if reduction == "none" else losses.sum() / (count if reduction == "mean" else 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_losses_and_gradients_are_those_of_the_formula(backend: str, dtype: torch.dtype, reduction: str) -> None:
    exact = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 3e-3}[dtype]
    for (N, V, C), ignored, z_loss in (((7, 65, 16), 0, 0.0), ((23, 31, 8), 9, 0.05), ((1, 1, 4), 0, 0.0)):
        tensors = [draw(N, C).to(dtype), draw(V, C, seed=1).to(dtype)]
        options = {"reduction": reduction, "z_loss": z_loss}
        labels = targets(N, V, ignored)
        found = with_gradients(lambda h, w, a=labels, b=options: linear_cross_entropy(h, w, a, **b), tensors)
        right = with_gradients(lambda h, w, a=labels, b=options: truth(h, w, a, **b), [x.double() for x in tensors])
        assert found[0].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        for ours, wanted in zip(found, right, strict=True):
            assert (ours.double() - wanted).norm() <= exact * wanted.norm().clamp(min=0.01)


def test_chunks_cost_half_precision_next_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The errors of the chunked gradients are at most 1.1 times those on all logits."""
    monkeypatch.setattr(chunked_cross_entropy, "AT_ONCE", 20 * 500)
    tensors = [draw(200, 48).bfloat16(), draw(500, 48, seed=1).bfloat16()]
    inputs = (targets(200, 500, 9), -100, 0.0, "mean")
    right = with_gradients(lambda h, w: truth(h, w, inputs[0], "mean"), [x.double() for x in tensors])
    off = [
        [(a.double() - b).norm() for a, b in zip(with_gradients(f, tensors), right, strict=True)]
        for f in (lambda h, w: chunked_cross_entropy.loss(h, w, *inputs), lambda h, w: door._whole(h, w, *inputs))
    ]
    assert all(chunked <= 1.1 * whole for chunked, whole in zip(*off, strict=True))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_nothing_but_ignored_targets_gives_zero_without_a_gradient(backend: str, reduction: str) -> None:
    labels = targets(9, 40, 9, label=2)
    tensors = [draw(9, 8).float(), draw(40, 8).float()]
    options = {"ignored": 2, "z_loss": 1.0, "reduction": reduction}
    for found in with_gradients(lambda h, w: linear_cross_entropy(h, w, labels, **options), tensors):
        assert not found.any()


def test_a_frozen_output_layer_gets_no_gradient_and_h_the_same(backend: str) -> None:
    h, weight, labels = draw(9, 8).float(), draw(40, 8).float(), targets(9, 40, 2)
    for reduction in ("mean", "none"):
        both = [h.clone().requires_grad_(), weight.clone().requires_grad_()]
        linear_cross_entropy(*both, labels, reduction=reduction).sum().backward()
        for frozen in (0, 1):
            leaves = [x.clone().requires_grad_(i != frozen) for i, x in enumerate((h, weight))]
            linear_cross_entropy(*leaves, labels, reduction=reduction).sum().backward()
            assert leaves[frozen].grad is None
            assert torch.equal(leaves[1 - frozen].grad, both[1 - frozen].grad)


def test_a_loss_without_gradients_has_the_same_bits(backend: str) -> None:
    h, weight, labels = draw(9, 8).bfloat16().requires_grad_(), draw(40, 8).bfloat16(), targets(9, 40, 2)
    with torch.no_grad():
        alone = linear_cross_entropy(h, weight, labels)
    assert torch.equal(alone, linear_cross_entropy(h, weight, labels).detach())


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_small_shares_of_many_tokens_survive_half_precision(reduction: str) -> None:
    """Of 2,000 tokens each moves a word by 1/2,000 of 1/2,000, which fp16 hardly holds, yet together they do."""
    h, weight, labels = draw(2000, 4).half() + 1, 0.1 * draw(2000, 4).half(), targets(2000, 2000)

    def mean(h: Tensor, weight: Tensor) -> Tensor:
        losses = chunked_cross_entropy.loss(h, weight, labels, -100, 0.0, reduction)
        return losses if reduction == "mean" else losses.sum() / 2000

    right = with_gradients(lambda h, w: truth(h, w, labels, "mean"), [h.double(), weight.double()])
    found = with_gradients(mean, [h, weight])
    assert (found[2].double() - right[2]).norm() < 2e-3 * right[2].norm()


def test_the_door_takes_whole_logits_while_they_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "_chosen", {})
    monkeypatch.setattr(choice, "rows", {})
    monkeypatch.delenv("WORKBENCH_CROSS_ENTROPY", raising=False)
    door.decide_usual_calls(torch.device("cpu"))
    names = {row.call.split(", ")[1][:5]: row.backend for row in choice.rows.values()}
    assert names == {"up to": "whole", "over ": "chunked"}


@pytest.mark.parametrize(
    ("h", "weight", "labels", "reduction", "sentence"),
    [
        ((2, 3), (5, 4), (2,), "mean", "do not fit"),
        ((2, 3), (5, 3), (3,), "mean", "one whole number for each row"),
        ((2, 2, 3), (5, 3), (2,), "mean", "h must be"),
        ((2, 3), (5, 3), (2,), "average", "reduction must be"),
    ],
)
def test_what_does_not_fit_is_refused(
    h: tuple[int, ...], weight: tuple[int, ...], labels: tuple[int, ...], reduction: str, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        linear_cross_entropy(
            torch.zeros(h), torch.zeros(weight), torch.zeros(labels, dtype=torch.long), reduction=reduction
        )


def test_logits_of_a_large_vocabulary_are_never_held_whole() -> None:
    """GPT-2's vocabulary and 4,096 tokens: all logits in fp32 take 823 MB, and PyTorch holds several copies of them."""
    code = """if 1:
        import resource, torch
        from kernels import linear_cross_entropy
        torch.manual_seed(0)
        h = torch.randn(4096, 16).requires_grad_()
        weight = torch.randn(50257, 16).requires_grad_()
        targets = torch.randint(0, 50257, (4096,))
        linear_cross_entropy(h[:8], weight, targets[:8]).backward()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        linear_cross_entropy(h, weight, targets).backward()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) < 400 * 1024


COUNTS = GROUPS["loss_cases"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("group", COUNTS)
def test_the_kernels_are_as_exact_as_pytorch(group: str, place: str) -> None:
    outcomes = measure(group, "loss_cases", place == "gpu")
    assert len(outcomes) == COUNTS[group] * (1 if place == "interpreter" else 2)
    assert wrong(outcomes, "loss_cases") == {}
