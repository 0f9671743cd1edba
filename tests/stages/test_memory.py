"""The trial of the memory: a CPU's is shared by the processes of a machine, and weights are no activations."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from stages.optim import AdamW
from stages.training.memory import SPARE, probe

WIDTH = 64
ROW = WIDTH * 4
"""Bytes of a row of fp32 numbers."""


def flat(model: nn.Module) -> AdamW:
    return AdamW(model, betas=(0.9, 0.99), weight_decay=0.0)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_the_processes_of_a_machine_share_the_memory_of_its_cpu(
    monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    model = nn.Linear(WIDTH, WIDTH)
    optimizer = flat(model)
    gradients = sum(parameter.nbytes for parameter in model.parameters())
    for_each = (gradients + 8 * ROW) / SPARE + 1
    free = SimpleNamespace(available=int(4 * for_each) + 4)
    monkeypatch.setattr("psutil.virtual_memory", lambda: free)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))

    def loss_of(rows: int) -> Tensor:
        return model(torch.ones(rows, WIDTH)).sum()

    room = int(free.available // processes * SPARE) - gradients
    found = probe(model, optimizer, loss_of, 4096)
    assert found.activations == found.rows * ROW <= room < 2 * found.activations
    assert processes < 4 or found.rows == 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_further_model_counts_once_with_its_moments_and_not_with_every_row(dtype: torch.dtype) -> None:
    actor, critic = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
    alone, beside = (
        AdamW(model, betas=(0.9, 0.99), weight_decay=0.0, compute_dtype=dtype) for model in (actor, critic)
    )

    def loss_of(rows: int) -> Tensor:
        return critic(actor(torch.ones(rows, WIDTH, dtype=dtype))).sum()

    found = probe(actor, alone, loss_of, 4, [beside])
    size = torch.empty((), dtype=dtype).element_size()
    assert found.rows == 4 and found.activations == 4 * 2 * WIDTH * size
    of_one = probe(actor, alone, lambda rows: actor(torch.ones(rows, WIDTH, dtype=dtype)).sum(), 4)
    for part in ("weights", "gradients", "optimiser"):
        assert getattr(found, part) == 2 * getattr(of_one, part)
    assert all(parameter.grad is None for parameter in (*actor.parameters(), *critic.parameters()))
    assert beside.state()
