"""The clipped objective of policy gradients, and figures gathered over the updates of a step.

    L_t = − min( ρ_t A_t, clip(ρ_t, 1 − ε_low, 1 + ε_high) A_t ),    ρ_t = π(x_t) / π_old(x_t)

Source: Schulman et al., Proximal Policy Optimization Algorithms (arXiv 1707.06347), eq. 7; ε_high above ε_low:
Yu et al., DAPO (arXiv 2503.14476), eq. 10.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stages.loop import Progress
from stages.store.errors import WorkFailed

ROUNDING = {"fp32": 1e-3, "bf16": 5e-2}
"""What the mean |log ρ| of the first update may be, by precision: other shapes of a batch round otherwise."""


def clipped_surrogate(log_ratio: Tensor, advantages: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """L_t of the formula above, and 1.0 where the clip holds the gradient back, else 0.0; shapes are broadcast."""
    ratio = log_ratio.exp()
    plain, clipped = ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages
    return -torch.minimum(plain, clipped), (clipped < plain).float()


def assert_on_policy(progress: Progress, deviation: float) -> None:
    """Raise WorkFailed when the first update of a step is not by the policy that wrote the rollouts.

    deviation: the mean |log ρ| over its tokens.
    """
    if not deviation <= ROUNDING[progress.precision]:
        raise WorkFailed(
            f"The first update of step {progress.step + 1} is off-policy: |log ratio| is {deviation:.2g} on average.",
            "It must be 0 but for rounding; this is a mistake of the program, and worth a report.",
        )


class WeightedMeans:
    """Weighted means over a step's updates, kept on the device until the step is over."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._weights: dict[str, float] = {}

    def add(self, weight: float, **values: Tensor) -> None:
        """Take in figures, each the mean over as many as `weight` says."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, torch.zeros((), device=value.device)) + value.detach() * weight
            self._weights[name] = self._weights.get(name, 0.0) + weight

    def figures(self) -> dict[str, float]:
        """The means so far."""
        return {name: float(total) / self._weights[name] for name, total in self._sums.items()}
