"""A GPT to measure training with: GPT-2's blocks, in as few lines as show what the kernels do for a whole step.

Shapes: B batch, T tokens, C width, H heads, V vocabulary.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from kernels.attention import attention
from kernels.linear_cross_entropy import linear_cross_entropy


class Shape(NamedTuple):
    """A model and its batch."""

    name: str
    layers: int
    heads: int
    width: int
    vocabulary: int
    batch: int
    length: int


SHAPES = (Shape("124M", 12, 12, 768, 50257, 32, 1024), Shape("1.56B", 48, 25, 1600, 50257, 8, 1024))
TINY = Shape("tiny", 1, 2, 32, 100, 1, 16)


class Contender(NamedTuple):
    """How the two costly parts are computed."""

    attend: Callable[[Tensor, Tensor, Tensor], Tensor]
    loss: Callable[[Tensor, Tensor, Tensor], Tensor]
    compiled: bool = False


class Trained(NamedTuple):
    """What came of training."""

    tokens_per_s: float
    milliseconds: list[float]
    """Of each step under the clock."""
    loss: float
    """At the last step, in nats."""
    steps: int
    profile: list[str]
    """On a GPU, where the time of one more step went."""


def _sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def _whole(h_NC: Tensor, weight_VC: Tensor, targets_N: Tensor) -> Tensor:
    return functional.cross_entropy(functional.linear(h_NC, weight_VC).float(), targets_N)


CONTENDERS = {
    "ours": Contender(lambda q, k, v: attention(q, k, v, causal=True), linear_cross_entropy),
    "torch": Contender(_sdpa, _whole),
    "compiled": Contender(_sdpa, _whole, compiled=True),
}


class Block(nn.Module):
    """A block of a GPT without dropout, whose attention is a contender's."""

    def __init__(self, shape: Shape, attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        C = shape.width
        self.heads, self.attend = shape.heads, attend
        self.norm_1, self.norm_2 = nn.LayerNorm(C), nn.LayerNorm(C)
        self.qkv, self.out = nn.Linear(C, 3 * C), nn.Linear(C, C)
        self.up, self.down = nn.Linear(C, 4 * C), nn.Linear(4 * C, C)

    def forward(self, h_BTC: Tensor) -> Tensor:
        B, T, C = h_BTC.shape
        q, k, v = self.qkv(self.norm_1(h_BTC)).view(B, T, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        h_BTC = h_BTC + self.out(self.attend(q, k, v).transpose(1, 2).reshape(B, T, C))
        return h_BTC + self.down(functional.gelu(self.up(self.norm_2(h_BTC)), approximate="tanh"))


class GPT(nn.Module):
    """Token ids (B, T) and targets (B, T) to the mean loss in nats."""

    def __init__(self, shape: Shape, contender: Contender) -> None:
        super().__init__()
        self.tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.positions = nn.Embedding(shape.length, shape.width)
        self.blocks = nn.Sequential(*(Block(shape, contender.attend) for _ in range(shape.layers)))
        self.norm, self.loss = nn.LayerNorm(shape.width), contender.loss
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        places_T = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
        h_BTC = self.norm(self.blocks(self.tokens(tokens_BT) + self.positions(places_T)))
        return self.loss(h_BTC.flatten(0, 1), self.tokens.weight, targets_BT.flatten())


def train(
    shape: Shape,
    contender: Contender,
    device: torch.device,
    dtype: torch.dtype,
    steps: tuple[int, int],
    deadline: float,
) -> Trained:
    """Train on one set of random tokens, `steps` before the clock runs and under it, fewer when the time is over.

    Weights and moments are of `dtype`. deadline: in seconds of `time.monotonic`.
    """
    torch.manual_seed(0)
    with device:
        model: Any = GPT(shape, contender).to(dtype)
        tokens_BT = torch.randint(0, shape.vocabulary, (shape.batch, shape.length + 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), fused=device.type == "cuda")
    run = torch.compile(model) if contender.compiled else model
    times: list[float] = []
    loss = 0.0
    for step in range(sum(steps)):
        start = time.perf_counter()
        loss = _step(run, optimizer, tokens_BT)
        if step >= steps[0]:
            times.append(time.perf_counter() - start)
        if times and time.monotonic() > deadline:
            break
    profile = _profile(run, optimizer, tokens_BT, shape.name) if device.type == "cuda" else []
    rate = tokens_BT[:, 1:].numel() * len(times) / sum(times)
    del model, run, optimizer
    gc.collect()
    return Trained(rate, [1e3 * seconds for seconds in times], loss, steps[0] + len(times), profile)


def _step(model: Callable[..., Tensor], optimizer: torch.optim.Optimizer, tokens_BT: Tensor) -> float:
    loss = model(tokens_BT[:, :-1], tokens_BT[:, 1:])
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def _profile(model: Callable[..., Tensor], optimizer: torch.optim.Optimizer, tokens_BT: Tensor, name: str) -> list[str]:
    """The eight kernels that take most of one step's time on a GPU."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        _step(model, optimizer, tokens_BT)
        torch.cuda.synchronize()
    found = sorted(profiler.key_averages(), key=lambda event: -event.self_device_time_total)
    total = sum(event.self_device_time_total for event in found) or 1.0
    return [f"{name}: {event.self_device_time_total / total:5.1%} {event.key[:90]}" for event in found[:8]]
