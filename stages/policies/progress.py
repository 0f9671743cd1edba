"""Where a policy run stands: what its checkpoints hold beside weights and moments, so that it goes on exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from stages.loop import Progress
from stages.policies.alarms import Watched


class Moments(msgspec.Struct):
    """Mean and spread of all numbers so far. Source: Welford (1962), by batches as Chan et al. (1979)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, values: Sequence[float]) -> None:
        """Take more numbers in."""
        fresh = np.asarray(values, np.float64)
        count, apart = self.count + len(fresh), float(fresh.mean()) - self.mean
        self.squares += float(((fresh - fresh.mean()) ** 2).sum()) + apart**2 * self.count * len(fresh) / count
        self.mean += apart * len(fresh) / count
        self.count = count

    @property
    def std(self) -> float:
        return math.sqrt(self.squares / self.count) if self.count else 1.0


class PolicyProgress(Progress, kw_only=True):
    """Where a policy run stands: beside what every training has, its prompts, KL coefficient, rewards and alarms."""

    asked: int = 0
    """Prompts asked so far: their place in the endless order."""
    drawn: int = 0
    """Completions drawn so far: each has a seed of its own."""
    tokens_drawn: int = 0
    """Those of all rollouts and their prompts, learnt from or not."""
    coefficient: float = 0.0
    """The KL coefficient now in force."""
    rewards: Moments = msgspec.field(default_factory=Moments)
    watched: Watched = msgspec.field(default_factory=Watched)
