"""Which tile of which document each program of a kernel works on, for documents laid end to end."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

_kept: WeakIdKeyDictionary = WeakIdKeyDictionary()


def tile_table(cu_seqlens: Tensor, rows: int, block: int, order: str) -> Tensor:
    """(tiles, 3) int32: first row, length and tile number of a document for each program, those with most to do first.

    cu_seqlens (documents + 1,): as for `kernels.attention_packed`. `rows`: how many rows there are in all. `order` says
    what makes a tile heavy: "late" (causal queries), "early" (causal keys) or "long" (all see all). The number of tiles
    depends on shapes alone, so nothing waits for the device: those that no document needs have length 0.
    Kept with cu_seqlens, so that a batch's layers build it once.
    """
    kept = _kept.setdefault(cu_seqlens, {})
    key = (cu_seqlens._version, rows, block, order)
    if key not in kept:
        kept[key] = _build(cu_seqlens, rows, block, order)
    return kept[key]


def _build(cu_seqlens: Tensor, rows: int, block: int, order: str) -> Tensor:
    # Bounds are forced into place, so that wrong ones give wrong numbers rather than a read outside the tensors.
    bounds = cu_seqlens.long().clamp(0, rows).cummax(0).values
    lengths = bounds.diff()
    needed = (lengths + block - 1) // block
    ends = needed.cumsum(0)
    tile = torch.arange(rows // block + len(lengths), device=bounds.device)
    document = torch.bucketize(tile, ends, right=True).clamp(max=len(lengths) - 1)
    used = tile < ends[-1]
    number = tile - (ends - needed)[document]
    length = torch.where(used, lengths[document], 0)
    work = {"late": number + 1, "early": (length + block - 1) // block - number, "long": length}[order]
    heaviest = torch.where(used, work, 0).argsort(descending=True, stable=True)
    table = torch.stack([bounds[:-1][document], length, torch.where(used, number, 0)], 1)
    return table[heaviest].int().contiguous()
