"""Weights that training starts from, for the models that draw all of them alike."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def draw_weights(model: nn.Module, seed: int, spread: float) -> None:
    """Norms 1, vectors of biases 0, all else N(0, spread²), in fp32 on the CPU; the same seed gives the same bits."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            parameter.copy_(torch.empty(parameter.shape).normal_(0.0, spread, generator=generator))
        else:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
