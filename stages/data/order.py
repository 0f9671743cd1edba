"""The order in which training sees the members of a set: endless, another one each epoch, and kept nowhere.

It follows from (seed, epoch) alone, so the position, the number of members seen so far, is all a resumed run must know.
"""

from __future__ import annotations

import functools
import hashlib
from math import isqrt

import numpy as np
from numpy.typing import NDArray


def order_at(position: int, count: int, size: int, seed: int) -> NDArray[np.int64]:
    """The members of a set of `size` at these places of the endless order: (count,). ValueError for an empty set."""
    if size == 0:
        raise ValueError("there is nothing to put in order")
    parts = []
    while count > 0:
        epoch, within = divmod(position, size)
        taken = min(count, size - within)
        parts.append(permute(np.arange(within, within + taken, dtype=np.uint64), size, seed, epoch))
        position, count = position + taken, count - taken
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def permute(indices: NDArray[np.uint64], size: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Where a permutation of 0 … size − 1, chosen by (seed, epoch), sends `indices`, in O(1) memory.

    A Feistel network over Z_a × Z_b with a·b ≥ size; results beyond `size` are sent on until they fall within (cycle
    walking). Source: Black and Rogaway, Ciphers with Arbitrary Finite Domains (2002), method 3.
    """
    a = np.uint64(isqrt(size - 1) + 1)
    b = np.uint64(-(-size // int(a)))
    keys = _round_keys(seed, epoch)
    values = _rounds(indices, a, b, keys)
    outside = np.flatnonzero(values >= size)
    while len(outside):
        values[outside] = _rounds(values[outside], a, b, keys)
        outside = outside[values[outside] >= size]
    return values.astype(np.int64)


ROUNDS = 6  # an even number: left and right halves are mixed in turn


def _rounds(values: NDArray[np.uint64], a: np.uint64, b: np.uint64, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    left, right = values // b, values % b
    for turn in range(0, ROUNDS, 2):
        left = (left + _mix(right ^ keys[turn]) % a) % a
        right = (right + _mix(left ^ keys[turn + 1]) % b) % b
    return left * b + right


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele et al., Fast Splittable Pseudorandom Number Generators, 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@functools.lru_cache(maxsize=16)
def _round_keys(seed: int, epoch: int) -> NDArray[np.uint64]:
    digest = hashlib.blake2b(f"{seed}/{epoch}".encode(), digest_size=8 * ROUNDS).digest()
    return np.frombuffer(digest, "<u8").astype(np.uint64)
