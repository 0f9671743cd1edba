"""Rollouts as a worker writes them into samples.jsonl, made safe to show: each token with how strongly to colour it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

Colouring = Literal["kl", "advantage", "probability"]
COLOURINGS: tuple[Colouring, ...] = ("kl", "advantage", "probability")

FIELDS: dict[Colouring, str] = {"kl": "token_kl", "advantage": "token_advantage", "probability": "token_logprob"}

TITLES: dict[Colouring, str] = {
    "kl": "KL against the reference: pale 0.1, strong over 2 nats",
    "advantage": "advantage: better than expected, or worse",
    "probability": "probability: pale 90 %, strong under 10 %",
}
LEVELS = 4
"""Strengths of a colour; 0 is none."""


class Rollout(NamedTuple):
    """One completion that the policy wrote, as it was scored."""

    step: float
    prompt: str
    text: str
    reward: float | None
    kl: float | None
    ended: bool | None
    pieces: list[str]
    values: dict[Colouring, list[float]]

    def levels(self, colouring: Colouring) -> list[int]:
        """How strongly to colour each token, from −LEVELS (worse) to LEVELS; only advantages go below 0."""
        return [level(colouring, value) for value in self.values.get(colouring, [])]


def is_rollout(row: Mapping[str, Any]) -> bool:
    """Whether a row of samples.jsonl is one."""
    return row.get("kind") == "rollout"


def rollout_of(row: Mapping[str, Any]) -> Rollout:
    """A row as a rollout; what is missing or of another type is left out."""
    pieces = [str(piece) for piece in _list(row.get("pieces"))]
    values = {name: _numbers(row.get(key), len(pieces)) for name, key in FIELDS.items()}
    ended = row.get("ended")
    return Rollout(
        step=_number(row.get("step")) or 0.0,
        prompt=str(row.get("prompt") or ""),
        text=str(row.get("text") or ""),
        reward=_number(row.get("reward")),
        kl=_number(row.get("kl")),
        ended=ended if isinstance(ended, bool) else None,
        pieces=pieces,
        values={name: found for name, found in values.items() if found},
    )


def level(colouring: Colouring, value: float) -> int:
    """How strongly to colour a token of this KL or log-probability in nats, or of this advantage."""
    if colouring == "kl":
        return _steps(abs(value), (0.1, 0.5, 1.0, 2.0))
    if colouring == "probability":
        return _steps(-value, (-math.log(0.9), -math.log(0.6), -math.log(0.3), -math.log(0.1)))
    strength = _steps(abs(value), (0.1, 0.5, 1.0, 2.0))
    return strength if value >= 0 else -strength


def _steps(value: float, bounds: Sequence[float]) -> int:
    return sum(value >= bound for bound in bounds)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: Any) -> float | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good else None


def _numbers(values: Any, count: int) -> list[float]:
    """As many numbers as there are tokens, or none."""
    found = [_number(value) for value in _list(values)]
    return [value or 0.0 for value in found] if count and len(found) == count else []
