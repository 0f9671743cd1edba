"""KL from the reference, estimated from the policy's own samples, and a controller of what it costs.

With x ~ π and r = π_ref(x) / π(x), each an estimate of KL(π ‖ π_ref) in nats:

    k1 = − log r        k3 = r − 1 − log r

Both are unbiased; k3 is never negative and varies less. Source: Schulman, Approximating KL Divergence (2020).
"""

from __future__ import annotations

from torch import Tensor

MOST = 0.2
"""Share by which one error may change the coefficient, over a whole horizon."""


def k1(logprobs: Tensor, reference: Tensor) -> Tensor:
    """log π − log π_ref of each sample; any shape."""
    return logprobs - reference


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """r − 1 − log r of each sample; any shape.

    Its own gradient is, on average, that of KL(π_ref ‖ π); that of ρ · k3, with ρ the importance ratio, is that of
    KL(π ‖ π_ref). Source: DeepSeek-V3.2 (arXiv 2512.02556), section 3.1.
    """
    log_r = reference - logprobs
    return log_r.exp() - 1 - log_r


def adapted(coefficient: float, kl: float, *, target: float, horizon: int, completions: int) -> float:
    """The coefficient after completions whose mean KL was `kl` nats: raised above the target, lowered below it.

    e = clip(KL / target − 1, −0.2, 0.2);  β ← β (1 + e · completions / horizon)

    More completions than the horizon count as one horizon: β stays above 0.

    Source: Ziegler et al., Fine-Tuning Language Models from Human Preferences (arXiv 1909.08593), section 2.2.
    """
    error = min(max(kl / target - 1, -MOST), MOST)
    return coefficient * (1 + error * min(1.0, completions / horizon))
