"""Whom the bench sets against each other in attention, and one pass of each as a call that can be timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

Attention = Callable[[Tensor, Tensor, Tensor, bool], Tensor]
"""q, k and v [B, H, T, D] and whether it is causal, to what the heads say [B, H, T, D]."""


def contenders(device: torch.device) -> Iterator[tuple[str, Attention]]:
    """Attention by name. What a card cannot run is found out by trying."""
    from kernels import triton_backend

    yield "triton", lambda q, k, v, causal: triton_backend.attention(q, k, v, causal=causal)
    if device.type != "cuda":
        yield "sdpa", lambda q, k, v, causal: functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return
    for name, backend in (("flash", SDPBackend.FLASH_ATTENTION), ("cudnn", SDPBackend.CUDNN_ATTENTION)):
        yield name, _pinned(backend)
    yield "flex", _flex()


def _pinned(backend: SDPBackend) -> Attention:
    def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
        with sdpa_kernel(backend):
            return functional.scaled_dot_product_attention(q, k, v, is_causal=causal)

    return attend


def _flex() -> Attention:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    compiled = torch.compile(flex_attention)
    masks: dict[int, Any] = {}

    def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
        T = q.shape[2]
        if causal and T not in masks:
            masks[T] = create_block_mask(lambda b, h, i, j: i >= j, None, None, T, T, device=str(q.device))
        return compiled(q, k, v, block_mask=masks[T] if causal else None)

    return attend


def forward(attend: Attention, sets: list[list[Tensor]], causal: bool) -> Callable[[], Any]:
    """The forward pass alone, at each call with the next of `sets`."""
    turn = cycle(sets)

    def run() -> Tensor:
        with torch.no_grad():
            q, k, v = next(turn)
            return attend(q, k, v, causal)

    return run


def backward(attend: Attention, sets: list[list[Tensor]], causal: bool) -> Callable[[], Any]:
    """The backward pass alone; its forward pass is run at the first call."""
    graphs: list[tuple[Tensor, list[Tensor], Tensor]] = []
    turn: Iterator[tuple[Tensor, list[Tensor], Tensor]] = iter(())

    def run() -> Any:
        nonlocal turn
        if not graphs:
            outs = [attend(q, k, v, causal) for q, k, v in sets]
            graphs.extend((out, leaves, torch.randn_like(out)) for out, leaves in zip(outs, sets, strict=True))
            turn = cycle(graphs)
        out, leaves, upstream = next(turn)
        return torch.autograd.grad(out, leaves, upstream, retain_graph=True)

    return run


def both_ways(function: Callable[[Tensor], Tensor], leaf: Tensor) -> Callable[[], Any]:
    """A function of one tensor and its gradient."""

    def run() -> Any:
        out = function(leaf)
        return torch.autograd.grad(out, leaf, out.detach())  # any upstream gradient will do

    return run
