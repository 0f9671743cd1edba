"""What low-rank adapters add to a linear layer.

    y ← y + s · dropout(x) A B      with A (inputs, r), B (r, outputs), s = α / r

Source: Hu et al. 2021, LoRA: Low-Rank Adaptation of Large Language Models (arXiv 2106.09685), section 4.1.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class Span(NamedTuple):
    """The outputs of a linear layer that one adapter changes: those of one published layer."""

    name: str
    """The published layer's name, such as model.layers.0.self_attn.q_proj."""
    start: int
    stop: int


class Lora(nn.Module):
    """Adapters of one linear layer, whose outputs several published layers may share. Spans rise and do not overlap."""

    def __init__(self, spans: list[Span], inputs: int, rank: int, scale: float, dropout: float, like: Tensor) -> None:
        super().__init__()
        self.spans, self.scale, self.dropout = spans, scale, dropout
        self.a = nn.ParameterList(nn.Parameter(like.new_empty(inputs, rank)) for _ in spans)
        self.b = nn.ParameterList(nn.Parameter(like.new_zeros(rank, s.stop - s.start)) for s in spans)

    def start(self, generator: torch.Generator) -> None:
        """A uniform within ±1/√inputs, as PEFT draws it, and B = 0: the layer begins unchanged."""
        with torch.no_grad():
            for a in self.a:
                bound = 1 / math.sqrt(len(a))
                a.copy_(torch.empty(a.shape).uniform_(-bound, bound, generator=generator))

    def forward(self, x_NI: Tensor, y_NO: Tensor) -> Tensor:
        x_NI = functional.dropout(x_NI, self.dropout, self.training) if self.dropout else x_NI
        parts, end = [], 0
        for span, a, b in zip(self.spans, self.a, self.b, strict=True):
            if span.start > end:
                parts.append(y_NO[:, end : span.start])
            parts.append(torch.addmm(y_NO[:, span.start : span.stop], x_NI @ a, b, alpha=self.scale))
            end = span.stop
        if end < y_NO.shape[1]:
            parts.append(y_NO[:, end:])
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def added_to(self, weight: Tensor) -> Tensor:
        """The weight (inputs, outputs) with which the layer does the same without adapters; computed in fp32."""
        merged = weight.float()
        merged = merged.clone() if merged is weight else merged
        for span, a, b in zip(self.spans, self.a, self.b, strict=True):
            merged[:, span.start : span.stop] += self.scale * (a.float() @ b.float())
        return merged.to(weight.dtype)
