"""A text as streams that are read side by side: each row of a batch goes on where it stood in the batch before."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.store.errors import UserError


class Streams:
    """The tokens in `rows` equally long stretches, each read in segments of `length` + 1 tokens that overlap by one.

    All rows begin anew together when they are through. So the number of the segment is all that a resumed run must
    know, besides what the model remembers.
    """

    def __init__(self, tokens: NDArray[np.unsignedinteger], rows: int, length: int) -> None:
        """UserError when the text is too short for one segment a row."""
        stretch = (len(tokens) - 1) // rows
        self.segments = stretch // length
        if not self.segments:
            raise UserError(
                f"The text has {len(tokens):,} tokens, too few for {rows:,} streams of {length:,}.",
                "Choose a smaller batch_size or context, or add text.",
            )
        self._tokens, self._length = tokens, length
        self._starts = np.arange(rows)[:, None] * stretch + np.arange(length + 1)

    def begins(self, number: int) -> bool:
        """Whether all rows begin anew with this segment."""
        return number % self.segments == 0

    def at(self, number: int) -> NDArray[np.int64]:
        """Segment `number` of the endless order, of every row: (rows, length + 1)."""
        return self._tokens[self._starts + (number % self.segments) * self._length].astype(np.int64)
