"""AdamW over flat buffers: fp32 master weights, and a working copy in the precision of the arithmetic.

    m ← β₁ m + (1 − β₁) g        v ← β₂ v + (1 − β₂) g²
    w ← w − lr · ( m̂ / (√v̂ + ε) + λ w )        λ on matrices only

Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization (arXiv 1711.05101), algorithm 2.

All parameters live in one buffer, so an update, a clip or a cast is one operation over contiguous memory instead of
one for each tensor; at a million parameters that is a visible share of a step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

ALIGN = 64
"""Parameters begin at multiples of this many elements, so that vector loads stay aligned."""


class AdamW:
    """Owns the weights of `model`: fp32 masters, moments, and the working copy that the model computes with."""

    def __init__(
        self,
        model: nn.Module,
        *,
        betas: tuple[float, float],
        weight_decay: float,
        eps: float = 1e-8,
        compute_dtype: torch.dtype = torch.float32,
    ) -> None:
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        # Matrices first: weight decay then covers one slice of the buffer.
        self.parameters = sorted(parameters, key=lambda parameter: parameter.ndim < 2)
        offsets, matrices, total = _layout(self.parameters)
        device = self.parameters[0].device
        self.master = torch.zeros(total, dtype=torch.float32, device=device)
        self.gradient = torch.zeros_like(self.master)
        self._master_views = _views(self.master, self.parameters, offsets)
        self._gradient_views = _views(self.gradient, self.parameters, offsets)
        torch._foreach_copy_(self._master_views, [parameter.detach() for parameter in self.parameters])
        same = compute_dtype == torch.float32
        self.compute = self.master if same else torch.empty(total, dtype=compute_dtype, device=device)
        self._compute_views = _views(self.compute, self.parameters, offsets)
        self._refresh()
        self._point_model_at(self._compute_views)
        self._groups = [nn.Parameter(self.master[:matrices]), nn.Parameter(self.master[matrices:])]
        self._groups[0].grad, self._groups[1].grad = self.gradient[:matrices], self.gradient[matrices:]
        self._update = torch.optim.AdamW(
            [
                {"params": [self._groups[0]], "weight_decay": weight_decay},
                {"params": [self._groups[1]], "weight_decay": 0.0},
            ],
            betas=betas,
            eps=eps,
            fused=True,
        )

    def gather(self, *, first: bool) -> None:
        """Move the gradients of a micro-batch into the fp32 buffer, replacing (`first`) or adding to what is there."""
        gradients = [_gradient(parameter) for parameter in self.parameters]
        if first:
            torch._foreach_copy_(self._gradient_views, gradients)
        else:
            torch._foreach_add_(self._gradient_views, tuple(gradients))
        for parameter in self.parameters:
            parameter.grad = None

    def clip(self, limit: float) -> float:
        """Scale the gradient to a norm of at most `limit` (0: leave it); the norm before that."""
        norm = float(torch.linalg.vector_norm(self.gradient))
        if 0 < limit < norm:
            self.gradient.mul_(limit / (norm + 1e-6))
        return norm

    def step(self, lr: float) -> None:
        """Update the masters with the gathered gradient, then refresh the working copy."""
        for group in self._update.param_groups:
            group["lr"] = lr
        self._update.step()
        self._refresh()

    @contextlib.contextmanager
    def masters(self) -> Iterator[None]:
        """While this lasts, the model's parameters are the fp32 masters: for saving."""
        self._point_model_at(self._master_views)
        try:
            yield
        finally:
            self._point_model_at(self._compute_views)

    def state(self) -> dict[str, Tensor]:
        """What resuming needs beside the weights: both moments and the count of updates."""
        state: dict[str, Tensor] = {}
        for name, group in zip(("matrices", "rest"), self._groups, strict=True):
            for key, value in self._update.state[group].items():
                state[f"{name}.{key}"] = value
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` gave. The masters are what the model held when this object was made."""
        for name, group in zip(("matrices", "rest"), self._groups, strict=True):
            own = {key.partition(".")[2]: value for key, value in state.items() if key.startswith(name + ".")}
            self._update.state[group] = {key: _placed(value, key, group) for key, value in own.items()}

    def _refresh(self) -> None:
        if self.compute is not self.master:
            self.compute.copy_(self.master)

    def _point_model_at(self, views: list[Tensor]) -> None:
        for parameter, view in zip(self.parameters, views, strict=True):
            parameter.data = view


def _layout(parameters: list[nn.Parameter]) -> tuple[list[int], int, int]:
    """Offsets of the parameters in a flat buffer, where the matrices end, and the buffer's length in elements."""
    offsets, end, matrices = [], 0, 0
    for parameter in parameters:
        offsets.append(end)
        end += -(-parameter.numel() // ALIGN) * ALIGN
        if parameter.ndim >= 2:
            matrices = end
    return offsets, matrices, end


def _views(flat: Tensor, parameters: list[nn.Parameter], offsets: list[int]) -> list[Tensor]:
    return [
        flat[offset : offset + parameter.numel()].view(parameter.shape)
        for parameter, offset in zip(parameters, offsets, strict=True)
    ]


def _gradient(parameter: nn.Parameter) -> Tensor:
    return parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)


def _placed(value: Tensor, key: str, group: Tensor) -> Tensor:
    return value.clone().to(group.device) if key != "step" or group.device.type != "cpu" else value.clone()
