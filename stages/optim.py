"""AdamW over flat buffers: fp32 master weights, and a working copy in the precision of the arithmetic.

    m ← β₁ m + (1 − β₁) g        v ← β₂ v + (1 − β₂) g²
    w ← w − lr · ( m̂ / (√v̂ + ε) + λ w )        λ on matrices only

Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization (arXiv 1711.05101), algorithm 2.

All parameters live in one buffer, so an update, a clip or a cast is one operation over contiguous memory instead of
one for each tensor; at a million parameters that is a visible share of a step.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from stages.training import distributed

MOMENTS = ("exp_avg", "exp_avg_sq")
"""Of AdamW, as torch calls them: the moving averages of the gradient and of its square."""

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
        named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        # Matrices first: weight decay then covers one slice of the buffer.
        named.sort(key=lambda pair: pair[1].ndim < 2)
        self.names = [name for name, _ in named]
        self.parameters = [parameter for _, parameter in named]
        self.sharded = distributed.sharded(model)
        self._model = model
        self._shards = [distributed.own(parameter.detach()) for parameter in self.parameters]
        offsets, matrices, total = _layout(self._shards)
        device = self._shards[0].device
        self.master = torch.zeros(total, dtype=torch.float32, device=device)
        self.gradient = torch.zeros_like(self.master)
        self._offsets = offsets
        self._master_views = _views(self.master, self._shards, offsets)
        self._gradient_views = _views(self.gradient, self._shards, offsets)
        torch._foreach_copy_(self._master_views, self._shards)
        same = compute_dtype == torch.float32 or self.sharded  # shards are rounded as they are gathered
        self.compute = self.master if same else torch.empty(total, dtype=compute_dtype, device=device)
        self._compute_views = _views(self.compute, self._shards, offsets)
        if not self.sharded:
            distributed.broadcast(self.master)
            self._refresh()
            self._point_model_at(self._compute_views)
            self._shards = self._compute_views
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
        gradients = [
            _gradient(parameter, shard) for parameter, shard in zip(self.parameters, self._shards, strict=True)
        ]
        if first:
            torch._foreach_copy_(self._gradient_views, gradients)
        else:
            torch._foreach_add_(self._gradient_views, tuple(gradients))
        for parameter in self.parameters:
            parameter.grad = None

    def clip(self, limit: float) -> float:
        """Scale the gradient to a norm of at most `limit` (0: leave it); the norm before that.

        It is the gradient of all processes that train together, added up here, and its norm over all their shards.
        """
        if not self.sharded:
            distributed.all_reduce_sum(self.gradient)
        norm = float(torch.linalg.vector_norm(self.gradient))
        if self.sharded:
            norm = math.sqrt(distributed.total(norm * norm)[0])
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
        """While this lasts, the model's parameters are the fp32 masters: for saving.

        Those of a sharded model are gathered, in the first of its processes; all must come.
        """
        if self.sharded:
            with distributed.whole_in_first(self._model, dict(zip(self.names, self._master_views, strict=True))):
                yield
            return
        self._point_model_at(self._master_views)
        try:
            yield
        finally:
            self._point_model_at(self._compute_views)

    def bytes_on_disk(self) -> int:
        """What a checkpoint holds of it at least: the weights that are trained and both moments, in fp32."""
        return (1 + len(MOMENTS)) * self.master.nbytes

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
            self._update.state[group] = {key: value.clone().to(group.device) for key, value in own.items()}

    def moments(self) -> dict[str, Tensor]:
        """Views of what `state` gives by parameter: `exp_avg/NAME` and `exp_avg_sq/NAME`, as this process holds them.

        Made as zeros where no update was made yet. The count of updates is not among them.
        """
        self.make_moments()
        found: dict[str, Tensor] = {}
        matrices = len(self._groups[0])
        for key in MOMENTS:
            flat = [self._update.state[group][key] for group in self._groups]
            for name, shard, offset in zip(self.names, self._shards, self._offsets, strict=True):
                held, start = (flat[0], offset) if offset < matrices else (flat[1], offset - matrices)
                found[f"{key}/{name}"] = held[start : start + shard.numel()].view(shard.shape)
        return found

    def views_of(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same of what `state` gave in a process that held the whole model."""
        offsets, matrices, _ = _layout(self.parameters)
        found: dict[str, Tensor] = {}
        for key in MOMENTS:
            flat = torch.cat([state[f"matrices.{key}"], state[f"rest.{key}"]])
            assert len(state[f"matrices.{key}"]) == matrices
            views = _views(flat, self.parameters, offsets)
            found |= {f"{key}/{name}": view for name, view in zip(self.names, views, strict=True)}
        return found

    @property
    def updates(self) -> float:
        """How many updates have been made."""
        return float(self._update.state[self._groups[0]].get("step", 0.0))

    def set_updates(self, count: float) -> None:
        """Go on after so many updates."""
        self.make_moments()
        for group in self._groups:
            self._update.state[group]["step"].fill_(count)

    def make_moments(self) -> None:
        """Make both moments, as zeros, which otherwise come with the first update: so that the memory shows them."""
        for group in self._groups:
            state = self._update.state[group]
            for key in MOMENTS:
                state.setdefault(key, torch.zeros_like(group))
            state.setdefault("step", torch.zeros((), device=group.device))

    def _refresh(self) -> None:
        if self.sharded:
            torch._foreach_copy_(self._shards, self._master_views)
        if self.compute is not self.master:
            self.compute.copy_(self.master)

    def _point_model_at(self, views: list[Tensor]) -> None:
        for parameter, view in zip(self.parameters, views, strict=True):
            parameter.data = view


def _layout(parameters: Sequence[Tensor]) -> tuple[list[int], int, int]:
    """Offsets of the parameters in a flat buffer, where the matrices end, and the buffer's length in elements."""
    offsets, end, matrices = [], 0, 0
    for parameter in parameters:
        offsets.append(end)
        end += -(-parameter.numel() // ALIGN) * ALIGN
        if parameter.ndim >= 2:
            matrices = end
    return offsets, matrices, end


def _views(flat: Tensor, parameters: Sequence[Tensor], offsets: list[int]) -> list[Tensor]:
    return [
        flat[offset : offset + parameter.numel()].view(parameter.shape)
        for parameter, offset in zip(parameters, offsets, strict=True)
    ]


def _gradient(parameter: nn.Parameter, shard: Tensor) -> Tensor:
    return distributed.own(parameter.grad) if parameter.grad is not None else torch.zeros_like(shard)
