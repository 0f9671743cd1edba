"""Rotary positions: each pair of numbers in a query or key is turned by an angle proportional to its position.

    (x₁, x₂) at position t  ←  (x₁ cos tω − x₂ sin tω,  x₂ cos tω + x₁ sin tω),    ω_i = θ^(−2i / D)

with x₁ and x₂ half a head apart, as Llama's published weights have them. Source: Su et al. 2021 (arXiv 2104.09864).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kernels import rotary
from stages.store.architecture import Rope

Turn = tuple[Tensor, Tensor]
"""Cosines and signed sines, (T, 1, D) or (B, 1, 1, D): what `rotate` multiplies by."""


def rotate(x_BTHD: Tensor, turn: Turn) -> Tensor:
    """Turn the heads of queries or keys to their positions."""
    return rotary(x_BTHD, *turn)


def rotate_in_place(x_BHD: NDArray[np.float32], turn: Turn) -> None:
    """The same for one token a row in numpy, which takes a third of the time; the turn is that of positions (B, 1)."""
    cos, signed_sin = (each[:, 0].numpy() for each in turn)
    half = x_BHD.shape[-1] // 2
    crossed = np.empty_like(x_BHD)
    np.multiply(x_BHD[..., half:], signed_sin[..., :half], out=crossed[..., :half])
    np.multiply(x_BHD[..., :half], signed_sin[..., half:], out=crossed[..., half:])
    x_BHD *= cos
    x_BHD += crossed


class Rotary:
    """Tables of cosines and sines, computed in fp32 when a position is first asked for, and kept."""

    def __init__(self, rope: Rope, head_width: int) -> None:
        self._rope, self._head_width = rope, head_width
        self._tables: dict[tuple[torch.device, torch.dtype], Turn] = {}

    def at(self, positions: slice | Tensor, end: int, like: Tensor) -> Turn:
        """The turn of these positions, all of them below `end`, on the device and in the dtype of `like`.

        A slice (T) gives (T, 1, D), a tensor of positions (…) gives (…, 1, D).
        """
        key = (like.device, like.dtype)
        table = self._tables.get(key)
        if table is None or len(table[0]) < end:
            # Tensors made under inference_mode could not be used in a later training step.
            with torch.inference_mode(False), torch.no_grad():
                table = self._tables[key] = self._compute(1 << (end - 1).bit_length(), like)
        return table[0][positions][..., None, :], table[1][positions][..., None, :]

    def _compute(self, length: int, like: Tensor) -> Turn:
        inverse, scale = frequencies(self._rope, self._head_width)
        angles_TD = torch.arange(length, dtype=torch.float32)[:, None] * inverse
        cos, sin = angles_TD.cos() * scale, angles_TD.sin() * scale
        both = torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)
        return both[0].to(like.device, like.dtype), both[1].to(like.device, like.dtype)


def frequencies(rope: Rope, head_width: int) -> tuple[Tensor, float]:
    """Radians a position (D / 2,) in fp32 after stretching, and the factor of cosines and sines."""
    inverse = 1.0 / rope.theta ** (torch.arange(0, head_width, 2, dtype=torch.float32) / head_width)
    factor = rope.factor or 1.0
    if rope.kind == "linear":
        return inverse / factor, 1.0
    if rope.kind == "llama3":
        return _llama3(inverse, factor, rope), 1.0
    if rope.kind == "yarn":
        return _yarn(inverse, factor, rope, head_width), _yarn_scale(factor, rope)
    return inverse, 1.0


def _llama3(inverse: Tensor, factor: float, rope: Rope) -> Tensor:
    """Divide wavelengths longer than the old context, leave short ones, and blend in between.

    Source: Dubey et al. 2024, The Llama 3 Herd of Models (arXiv 2407.21783), with the released code.
    """
    assert rope.original_context and rope.low_freq_factor and rope.high_freq_factor
    turns = rope.original_context / (2 * math.pi / inverse)
    share = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    share = share.clamp(0, 1)
    return (1 - share) * inverse / factor + share * inverse


def _yarn(inverse: Tensor, factor: float, rope: Rope, head_width: int) -> Tensor:
    """Divide by the factor what turns seldom in the old context, by a ramp (arXiv 2309.00071, section 3.2)."""
    context = rope.original_context
    assert context

    def dimension(turns: float) -> float:
        return head_width * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = dimension(rope.beta_fast or 32.0), dimension(rope.beta_slow or 1.0)
    if rope.truncate is not False:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_width - 1)
    span = (high - low) or 0.001
    share = ((torch.arange(head_width // 2, dtype=torch.float32) - low) / span).clamp(0, 1)
    return inverse / factor * share + inverse * (1 - share)


def _yarn_scale(factor: float, rope: Rope) -> float:
    """How much larger queries and keys become, since attention over more keys is flatter (arXiv 2309.00071, eq. 22)."""

    def scale(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0

    if rope.attention_factor is not None:
        return rope.attention_factor
    if rope.mscale and rope.mscale_all_dim:
        return scale(rope.mscale) / scale(rope.mscale_all_dim)
    return scale(1.0)
