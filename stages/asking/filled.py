"""A text with its blanks filled, and how people write a blank."""

from __future__ import annotations

import re
from typing import NamedTuple

BLANK = re.compile(r"\[MASK\]|<mask>|<extra_id_\d+>|_{3,}")
"""BERT's mask, T5's sentinels, or three underscores."""


class Candidate(NamedTuple):
    """What could stand in a blank, with its probability."""

    text: str
    probability: float


class Filled(NamedTuple):
    """A text with its blanks filled by the likeliest, and the candidates of each blank, the likeliest first."""

    text: str
    blanks: list[list[Candidate]]
