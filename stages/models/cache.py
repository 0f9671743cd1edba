"""The KV cache: keys and values of the tokens that a model has seen, so that each is computed once.

Shapes: L layers, B sequences, G heads of keys and values, T tokens, D width of a head.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

ALIGN = 64
"""Bytes: a vector that torch loads at once."""


class KVCache:
    """Keys and values of the tokens seen so far. Row b holds lengths[b] tokens of one sequence.

    Keys and values of a layer lie in one block, so that one copy writes both. What lies beyond a row's length is
    whatever was there before. The dtype is that of `like`; what is written is cast to it.
    """

    def __init__(self, layers: int, rows: int, heads: int, room: int, width: int, like: Tensor) -> None:
        self.lengths = torch.zeros(rows, dtype=torch.int64, device=like.device)  # (rows,)
        self._hold(_zeros((layers, 2, rows, heads, room, width), like))

    def _hold(self, kv: Tensor) -> None:
        self._kv, self.dtype = kv, kv.dtype
        _, _, rows, heads, room, width = kv.shape
        self.room = room  # tokens that a row can hold
        self._layers = [(layer[0], layer[1], layer.view(-1, width)) for layer in kv]
        block = torch.arange(2 * rows * heads, device=kv.device).view(2, rows, heads) * room
        self._starts = block.transpose(0, 1).contiguous()  # (rows, 2, G): where each head of a row begins

    @property
    def kv(self) -> Tensor:
        """(L, 2, rows, G, room, D)"""
        return self._kv

    @property
    def k(self) -> Tensor:
        """(L, rows, G, room, D)"""
        return self._kv[:, 0]

    @property
    def v(self) -> Tensor:
        """(L, rows, G, room, D)"""
        return self._kv[:, 1]

    def layer(self, layer: int, rows: int | None = None) -> tuple[Tensor, Tensor]:
        """Keys and values of one layer, each (rows, G, room, D); of its first rows only."""
        keys, values, _ = self._layers[layer]
        return (keys, values) if rows is None or rows == len(keys) else (keys[:rows], values[:rows])

    def places(self, positions_B: Tensor) -> Tensor:
        """Where `append` writes the next token of the first B rows: the same in every layer (B · 2 · G,)."""
        return (self._starts[: len(positions_B)] + positions_B[:, None, None]).view(-1)

    def append(self, layer: int, places: Tensor, kv_BGD: Tensor) -> None:
        """Write one token a row: its G keys, then its G values (B, 2 G, D)."""
        held = self._layers[layer][2]
        if held.dtype == torch.float32 and held.device.type == "cpu":  # numpy takes a quarter of the time
            held.numpy()[places.numpy()] = kv_BGD.detach().float().numpy().reshape(len(places), -1)
        else:
            held.index_copy_(0, places, kv_BGD.reshape(len(places), -1).to(held.dtype))

    def write(self, layer: int, rows: Tensor, k_BGTD: Tensor, v_BGTD: Tensor) -> None:
        """Write the first T tokens of several rows."""
        for held, new in zip(self.layer(layer), (k_BGTD, v_BGTD), strict=True):
            held[:, :, : new.shape[2]].index_copy_(0, rows, new.to(held.dtype))

    def grow(self, room: int) -> None:
        """Make room for longer sequences; what is there stays."""
        old = self._kv
        new = _zeros((*old.shape[:4], room, old.shape[5]), old)
        new[:, :, :, :, : self.room] = old
        self._hold(new)

    def copy_row(self, source: int, target: int) -> None:
        """Overwrite one row by another."""
        n = int(self.lengths[source])
        self._kv[:, :, target, :, :n] = self._kv[:, :, source, :, :n]
        self.lengths[target] = n

    def copy_prompts(self, sources_R: Tensor, targets_R: Tensor, longest: int) -> None:
        """Overwrite rows by others that hold at most so many tokens."""
        self._kv[:, :, targets_R, :, :longest] = self._kv[:, :, sources_R, :, :longest]
        self.lengths[targets_R] = self.lengths[sources_R]


def _zeros(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Zeros of the dtype and on the device of `like`; on a CPU, memory is taken page by page where it is first used."""
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    held = np.zeros(math.prod(shape) * like.element_size() + ALIGN, np.uint8)
    start = -held.ctypes.data % ALIGN
    return torch.from_numpy(held[start : len(held) - ALIGN + start]).view(like.dtype).view(shape)
