"""Words, n-grams and their 64-bit hashes: what near duplicates, repetition and contamination are measured with."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Myanmar, Khmer
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # kana and Han
)
"""Scripts that put no spaces between words: there, every character counts as a word."""

UNSPACED_CHARACTER = re.compile(f"[{UNSPACED}]")
WORD = re.compile(f"[{UNSPACED}]|[^\\s{UNSPACED}]+")
BARE_WORD = re.compile(f"[{UNSPACED}]|[^\\W_{UNSPACED}]+")

BASE = np.uint64(0x9E3779B97F4A7C15)


def words(text: str) -> list[str]:
    """What stands between spaces; in scripts without spaces, the characters."""
    if text.isascii() or not UNSPACED_CHARACTER.search(text):
        return text.split()  # the same, and much faster
    return WORD.findall(text)


def bare_words(text: str) -> list[str]:
    """Words in lower case without punctuation, for comparing texts that are set differently."""
    return BARE_WORD.findall(text.lower())


def word_hashes(found: list[str]) -> Hashes:
    """A hash of each word. They hold in this process only: Python salts the hashes of strings."""
    return np.fromiter(map(hash, found), np.int64, len(found)).view(np.uint64)


def character_codes(text: str) -> Hashes:
    """The code points of a text."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)


def ngrams(symbols: Hashes, n: int) -> Hashes:
    """The hash of every n symbols in a row: (len(symbols) − n + 1,), empty where there are fewer than n.

    A polynomial in BASE modulo 2^64, then mixed, since its low bits alone are weak.
    """
    count = len(symbols) - n + 1
    if count <= 0:
        return np.empty(0, np.uint64)
    total = symbols[:count].copy()
    for place in range(1, n):
        total *= BASE
        total += symbols[place : place + count]
    return mix(total)


def mix(values: Hashes) -> Hashes:
    """The finaliser of splitmix64 (Steele et al., Fast Splittable Pseudorandom Number Generators, 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
