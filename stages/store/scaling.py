"""The law by which loss falls with parameters and tokens, as Hoffmann et al. 2022 (arXiv 2203.15556) write it.

L(N, D) = E + A / N^α + B / D^β      equation 2: nats a token, N parameters, D tokens seen
C = 6 N D                            the arithmetic of training, in floating-point operations

No numpy here: the app draws from it. It is fitted in `stages/measuring/scaling.py`.
"""

from __future__ import annotations

import msgspec

FLOPS = 6
"""Operations for one parameter and one token, forward and backward."""


class Law(msgspec.Struct, frozen=True):
    """The five constants of the law."""

    E: float
    """Loss that no size and no budget takes away: the entropy of the text."""
    A: float
    B: float
    alpha: float
    beta: float

    def loss(self, parameters: float, tokens: float) -> float:
        """Predicted loss in nats a token (equation 2)."""
        return self.E + self.A / parameters**self.alpha + self.B / tokens**self.beta

    @property
    def shares(self) -> tuple[float, float]:
        """(a, b) of N ∝ C^a and D ∝ C^b along the compute-optimal line (equation 4)."""
        both = self.alpha + self.beta
        return self.beta / both, self.alpha / both

    def optimal(self, flops: float) -> tuple[float, float]:
        """(N, D) with the least loss of all that cost `flops` (equation 4)."""
        a, b = self.shares
        scale = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        return scale * (flops / FLOPS) ** a, (flops / FLOPS) ** b / scale

    def best_loss(self, flops: float) -> float:
        """The loss on the compute-optimal line."""
        return self.loss(*self.optimal(flops))


class Interval(msgspec.Struct, frozen=True):
    """A value with the middle 95 % of what a bootstrap gave for it."""

    value: float
    low: float
    high: float


class Forecast(msgspec.Struct, frozen=True):
    """What the law says of a run that is to come."""

    parameters: float
    tokens: float
    loss: Interval


class Fit(msgspec.Struct, frozen=True):
    """The law fitted to runs, with how sure it is."""

    law: Law
    intervals: dict[str, Interval]
    """By the name of a constant, and `share`: the exponent of N along the compute-optimal line."""
    error: float
    """Root of the mean square of log predicted less log measured: about the relative error."""
    points: int
    forecasts: list[Forecast] = []
