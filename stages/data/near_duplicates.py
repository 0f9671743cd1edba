"""Near duplicates: texts that share most of their character n-grams, found by MinHash and locality-sensitive hashing.

The signature is one-permutation MinHash: every shingle is hashed once, the hash says its bin, and a bin keeps its
least (Li, Owen and Zhang, One Permutation Hashing, NIPS 2012). A bin that stays empty borrows from one that did not,
in an order that is the same for all texts (Shrivastava, Optimal Densification for Fast and Accurate Minwise Hashing,
ICML 2017). The share of equal entries estimates the Jaccard similarity, as with the classical MinHash of Broder
(On the Resemblance and Containment of Documents, 1997), at 1/128 of its hashing. Bands and rows are those that
datasketch finds best for the threshold.

Characters rather than words, so that it serves languages without spaces. Leskovec, Rajaraman and Ullman (Mining of
Massive Datasets, section 3.2) advise 9 characters for long documents, 5 for short messages.
"""

from __future__ import annotations

import functools
import sqlite3
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.data.hashing import Hashes, character_codes, mix, ngrams

BINS = 128
"""Entries of a signature; the standard error of a similarity near 0.8 is 0.035."""

CANDIDATES = 64
"""Earlier texts compared with one text, at most."""

CACHE_KIB = 64 * 1024
COMMIT = 20_000
"""Texts between two commits; nothing is lost by a crash, for the index is thrown away."""

Signature = NDArray[np.uint32]


def signature(text: str, n: int) -> Signature:
    """(BINS,) of a text's n-grams of characters. Case and the amount of space do not matter."""
    codes = character_codes(" ".join(text.lower().split()))
    if len(codes) < n:
        codes = np.concatenate([codes, np.zeros(n - len(codes), np.uint64)])
    hashes = np.sort(ngrams(codes, n))
    first = np.searchsorted(hashes, EDGES)
    least = hashes[np.minimum(first, len(hashes) - 1)]
    filled = (first < len(hashes)) & (least >> SHIFT == BIN)
    return _densified(least, filled).astype(np.uint32)


def similarity(one: Signature, other: Signature) -> float:
    """The estimated share of n-grams that two texts have in common: 0 to 1."""
    return float(np.mean(one == other))


class NearDuplicates:
    """Texts seen so far, by signature, in a database at `path`; deleted on `close`. Memory does not grow with them."""

    def __init__(self, path: Path, threshold: float, n: int, limit: int) -> None:
        from datasketch import MinHashLSH  # slow to import, and only needed here

        best = MinHashLSH(threshold, BINS)
        self._bands, self._rows = best.b, best.r
        self._threshold, self._n, self._limit = threshold, n, limit
        self._path = path
        self._salts = mix(np.arange(1, self._rows + 1, dtype=np.uint64)) | np.uint64(1)
        self._offsets = mix(np.arange(1 << 20, (1 << 20) + self._bands, dtype=np.uint64))
        self._database = _created(path)
        marks = ",".join("?" * self._bands)
        self._match = f"SELECT DISTINCT text FROM bands WHERE key IN ({marks}) ORDER BY text LIMIT ?"
        self.kept = self.not_compared = 0

    def is_known(self, text: str) -> bool:
        """Whether an earlier text is as similar as the threshold; if not, it is remembered.

        Beyond `limit` remembered texts nothing is compared any more, and `not_compared` counts.
        """
        if self.kept >= self._limit:
            self.not_compared += 1
            return False
        made = signature(text, self._n)
        keys = self._keys(made)
        if self._like(made, keys):
            return True
        self._remember(made, keys)
        return False

    def close(self) -> None:
        """Let the database go."""
        self._database.close()
        self._path.unlink(missing_ok=True)

    def _keys(self, made: Signature) -> list[int]:
        """One number a band, equal where all its rows are."""
        table = made[: self._bands * self._rows].reshape(self._bands, self._rows).astype(np.uint64)
        return mix((table * self._salts).sum(axis=1) + self._offsets).view(np.int64).tolist()

    def _like(self, made: Signature, keys: list[int]) -> bool:
        for (number,) in self._database.execute(self._match, (*keys, CANDIDATES)).fetchall():
            (stored,) = self._database.execute("SELECT signature FROM texts WHERE text = ?", (number,)).fetchone()
            if similarity(made, np.frombuffer(stored, np.uint32)) >= self._threshold:
                return True
        return False

    def _remember(self, made: Signature, keys: list[int]) -> None:
        self._database.execute("INSERT INTO texts VALUES (?, ?)", (self.kept, made.tobytes()))
        rows = [(key, self.kept) for key in keys]
        self._database.executemany("INSERT OR IGNORE INTO bands VALUES (?, ?)", rows)
        self.kept += 1
        if self.kept % COMMIT == 0:
            self._database.commit()


def _created(path: Path) -> sqlite3.Connection:
    path.unlink(missing_ok=True)
    database = sqlite3.connect(path, check_same_thread=False)
    for pragma in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{CACHE_KIB}"):
        database.execute(f"PRAGMA {pragma}")
    database.execute("CREATE TABLE bands (key INTEGER, text INTEGER, PRIMARY KEY (key, text)) WITHOUT ROWID")
    database.execute("CREATE TABLE texts (text INTEGER PRIMARY KEY, signature BLOB)")
    return database


SHIFT = np.uint64(64 - BINS.bit_length() + 1)
BIN = np.arange(BINS, dtype=np.uint64)
EDGES = BIN << SHIFT
FEW, MANY = 64, 1024
"""Lenders that an empty bin tries at first, and in all; with one bin filled, 1 in 3,000 then takes that one."""


@functools.cache
def _lenders() -> NDArray[np.uint8]:
    """(BINS, MANY): the bins from which each bin may borrow, in the order in which it tries them."""
    order = mix(np.arange(BINS * MANY, dtype=np.uint64)) % np.uint64(BINS)
    return order.astype(np.uint8).reshape(BINS, MANY)


def _densified(least: Hashes, filled: NDArray[np.bool_]) -> Hashes:
    """Fill the empty bins from filled ones; which lend depends on the bin's number alone."""
    for tries in (FEW, MANY):
        empty = np.flatnonzero(~filled)
        if not len(empty):
            return least
        lenders = _lenders()[empty, :tries]
        lends = filled[lenders]
        found = np.argmax(lends, axis=1)
        place = np.arange(len(empty))
        borrowed = lends[place, found]
        chosen = np.where(borrowed, lenders[place, found], np.argmax(filled))
        least[empty] = least[chosen]
        if borrowed.all():
            return least
    return least
