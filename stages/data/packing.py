"""Rows of conversations: several packed into one, or each in one of its own, and the order in which training sees them.

Rows are made once, by best-fit decreasing: conversations in falling length, equal ones in an order that follows from
the seed, each into the row that it fills best. Each epoch sees every row once, in an order that follows from (seed,
epoch), so the position in training is one integer, as for `stages.data.blocks.Blocks`.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.data.conversation_shards import Conversations
from stages.data.order import order_at, permute
from stages.models.loss import IGNORED


class Batch(NamedTuple):
    """Conversations for one forward pass.

    Packed: tokens and targets (1, N), `documents` (conversations + 1,) says where each begins and ends. Padded: tokens
    and targets (B, T), documents None. A target is the next token of the same conversation where that is trained, and
    IGNORED elsewhere.
    """

    tokens: NDArray[np.int64]
    targets: NDArray[np.int64]
    documents: NDArray[np.int64] | None
    real: int
    """Tokens that are no padding."""


class Rows:
    """The conversations of one split in rows of at most `room` tokens."""

    def __init__(self, data: Conversations, room: int, seed: int, *, packed: bool) -> None:
        self._data, self._seed, self.packed = data, seed, packed
        if packed:
            self._members, self._starts = pack(data.lengths, room, seed)
        else:
            self._members = np.arange(len(data))
            self._starts = np.arange(len(data) + 1)
        self.filled = float(data.lengths.sum() / (room * len(self))) if len(self) else 0.0
        """Share of the room that tokens take, when rows are packed."""

    def __len__(self) -> int:
        return len(self._starts) - 1

    def order(self, position: int, count: int) -> NDArray[np.int64]:
        """Which rows stand at these places of the endless training order: (count,)."""
        return order_at(position, count, len(self), self._seed)

    def members(self, row: int) -> NDArray[np.int64]:
        """The conversations in a row."""
        return self._members[self._starts[row] : self._starts[row + 1]]

    def batch(self, rows: NDArray[np.int64], pad: int) -> Batch:
        """These rows together: packed end to end, or padded with the token `pad` to the longest of them."""
        chosen = [int(each) for row in rows for each in self.members(int(row))]
        pieces = [(self._ids(each), self._targets(each)) for each in chosen]
        lengths = [len(ids) for ids, _ in pieces]
        if self.packed:
            ids, targets = (np.concatenate(parts)[None] for parts in zip(*pieces, strict=True))
            return Batch(ids, targets, np.cumsum([0, *lengths]), sum(lengths))
        tokens = np.full((len(pieces), max(lengths)), pad, np.int64)
        targets = np.full_like(tokens, IGNORED)
        for row, (ids, wanted) in enumerate(pieces):
            tokens[row, : len(ids)], targets[row, : len(ids)] = ids, wanted
        return Batch(tokens, targets, None, sum(lengths))

    def trained(self, rows: NDArray[np.int64]) -> int:
        """Targets in these rows that are trained."""
        return sum(int((self._targets(int(each)) != IGNORED).sum()) for row in rows for each in self.members(int(row)))

    def costliest(self, count: int) -> NDArray[np.int64]:
        """The `count` rows whose batch needs most memory: those with most tokens, again where there are fewer."""
        lengths = self._data.lengths[self._members]
        sizes = np.add.reduceat(lengths, self._starts[:-1]) if len(self) else lengths
        return np.resize(np.argsort(-sizes, kind="stable"), count)

    def _ids(self, conversation: int) -> NDArray[np.int64]:
        start, end = self._data.starts[conversation : conversation + 2]
        return self._data.ids[start:end].astype(np.int64)

    def _targets(self, conversation: int) -> NDArray[np.int64]:
        start, end = self._data.starts[conversation : conversation + 2]
        targets = np.full(end - start, IGNORED, np.int64)
        wanted = self._data.trained[start + 1 : end] != 0
        targets[:-1][wanted] = self._data.ids[start + 1 : end][wanted]
        return targets


def pack(lengths: NDArray[np.int64], room: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of at most `room` tokens: their members one row after the other, and where each row starts.

    Best-fit decreasing, as in Johnson et al., Worst-Case Performance Bounds for Simple One-Dimensional Packing
    Algorithms (1974): at most 11/9 of the fewest rows possible, and one more. Raises ValueError for a length over room.
    """
    if len(lengths) and int(lengths.max()) > room:
        raise ValueError(f"a conversation of {int(lengths.max())} tokens does not fit a row of {room}")
    shuffled = permute(np.arange(len(lengths), dtype=np.uint64), len(lengths), seed, 0) if len(lengths) else lengths
    order = shuffled[np.argsort(-lengths[shuffled], kind="stable")]
    rows: list[list[int]] = []
    with_left: dict[int, list[int]] = {}  # by the room left in them, rows that are not full
    lefts: list[int] = []  # the keys of it, rising
    for conversation in order.tolist():
        length = int(lengths[conversation])
        place = bisect_left(lefts, length)
        if place == len(lefts):
            left, row = room, len(rows)
            rows.append([])
        else:
            left = lefts[place]
            row = with_left[left].pop()
            if not with_left[left]:
                del with_left[left], lefts[place]
        rows[row].append(conversation)
        if left > length:
            if left - length not in with_left:
                with_left[left - length] = []
                insort(lefts, left - length)
            with_left[left - length].append(row)
    starts = np.cumsum([0, *(len(row) for row in rows)])
    return np.array([each for row in rows for each in row], np.int64), starts
