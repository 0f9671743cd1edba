"""The flat AdamW is AdamW, and its masters are what is saved."""

import copy

import pytest
import torch
from torch import nn

from stages.optim import AdamW


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 13), nn.LayerNorm(13), nn.Linear(13, 3))


def loss_of(model: nn.Module, seed: int) -> torch.Tensor:
    x = torch.randn(5, 7, generator=torch.Generator().manual_seed(seed))
    return model(x.to(next(model.parameters()).dtype)).float().square().mean()


def test_it_updates_as_torch_does() -> None:
    ours, theirs = small_model(), small_model()
    matrices = [p for p in theirs.parameters() if p.ndim >= 2]
    rest = [p for p in theirs.parameters() if p.ndim < 2]
    reference = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}], lr=1e-2, betas=(0.9, 0.99)
    )
    optimizer = AdamW(ours, betas=(0.9, 0.99), weight_decay=0.1)
    for step in range(20):
        loss_of(ours, step).backward()
        optimizer.gather(first=True)
        norm = optimizer.clip(0.1)
        optimizer.step(1e-2)
        reference.zero_grad()
        loss_of(theirs, step).backward()
        expected = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.1)
        reference.step()
        assert norm == pytest.approx(float(expected), rel=1e-5)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


def test_micro_batches_add_up_in_fp32() -> None:
    model = small_model()
    optimizer = AdamW(model, betas=(0.9, 0.99), weight_decay=0.0, compute_dtype=torch.bfloat16)
    gradients = []
    for seed in (1, 2, 3):
        loss_of(model, seed).backward()
        gradients.append([p.grad.float() for p in optimizer.parameters if p.grad is not None])
        optimizer.gather(first=seed == 1)
    expected = torch.cat([(a + b + c).flatten() for a, b, c in zip(*gradients, strict=True)])
    got = torch.cat([view.flatten() for view in optimizer._gradient_views])
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_small_updates_are_not_lost_in_bf16() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    optimizer = AdamW(model, betas=(0.0, 0.0), weight_decay=0.0, compute_dtype=torch.bfloat16)
    for _ in range(100):
        model.weight.grad = torch.ones_like(model.weight)
        optimizer.gather(first=True)
        optimizer.step(1e-4)  # far below what bf16 can resolve at 1
    assert model.weight.dtype == torch.bfloat16
    with optimizer.masters():
        assert model.weight.dtype == torch.float32
        assert model.weight.item() == pytest.approx(1 - 100 * 1e-4, rel=1e-4)
    assert model.weight.item() == pytest.approx(0.99, rel=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_and_masters_are_all_that_resuming_needs(dtype: torch.dtype) -> None:
    def advance(model: nn.Module, optimizer: AdamW, steps: range) -> None:
        for step in steps:
            loss_of(model, step).backward()
            optimizer.gather(first=True)
            optimizer.step(1e-2)

    whole = small_model()
    optimizer = AdamW(whole, betas=(0.9, 0.99), weight_decay=0.1, compute_dtype=dtype)
    advance(whole, optimizer, range(5))
    with optimizer.masters():
        resumed = copy.deepcopy(whole)
    state = {key: value.clone() for key, value in optimizer.state().items()}
    advance(whole, optimizer, range(5, 10))

    second = AdamW(resumed, betas=(0.9, 0.99), weight_decay=0.1, compute_dtype=dtype)
    second.load_state(state)
    advance(resumed, second, range(5, 10))
    assert torch.equal(second.master, optimizer.master)

    forgetful = small_model()
    third = AdamW(forgetful, betas=(0.9, 0.99), weight_decay=0.1, compute_dtype=dtype)
    advance(forgetful, third, range(5, 10))
    assert not torch.equal(third.master, optimizer.master)
