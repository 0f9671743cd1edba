"""Randomness and splits that give the same bytes on every platform and Python version.

Only `random.Random.random` is promised to stay the same from one Python to the next, so every choice is made from it.
Splits hang on SHA-256 of the text itself, never on `hash`, so that a text stays in its part whatever else is drawn.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Draw:
    """A seeded source of choices."""

    def __init__(self, *seed: object) -> None:
        self._random = random.Random("/".join(str(part) for part in seed))

    def below(self, n: int) -> int:
        """An integer from 0 to n - 1."""
        return int(self._random.random() * n)

    def chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def pick(self, items: Sequence[T]) -> T:
        return items[self.below(len(items))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """A new list in random order (Fisher and Yates)."""
        out = list(items)
        for last in range(len(out) - 1, 0, -1):
            other = self.below(last + 1)
            out[last], out[other] = out[other], out[last]
        return out

    def sample(self, items: Sequence[T], n: int) -> list[T]:
        """`n` different positions of `items`, in random order."""
        return self.shuffled(items)[:n]


def digest(text: str) -> int:
    """The first 64 bits of SHA-256 of the text, as an integer."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def percentile(text: str) -> int:
    """Where a text falls in a split: an integer from 0 to 99."""
    return digest(text) % 100
