"""The formulas of policy training equal what float64 loops over tokens make of the papers' equations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from stages.grpo import advantages, grpo_loss, token_weights
from stages.policies.kl import adapted, k1, k3
from stages.policies.progress import Moments
from stages.policies.surrogate import clipped_surrogate
from stages.ppo import explained_variance, gae, masked_variance, ppo_losses, token_rewards, whiten
from stages.store.specs.ppo import PPO

B, T = 5, 9


def spans() -> list[tuple[int, int]]:
    """Where the targets of each row stand."""
    return [(0, 9), (2, 5), (3, 4), (1, 8), (4, 9)]


def mask() -> Tensor:
    found = torch.zeros(B, T)
    for row, (start, stop) in enumerate(spans()):
        found[row, start:stop] = 1
    return found


def drawn(seed: int, scale: float = 1.0) -> Tensor:
    return torch.randn(B, T, generator=torch.Generator().manual_seed(seed)) * scale


def close(found: Tensor, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(found.detach().double().numpy(), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.8), (1.0, 1.0), (1.0, 0.0)])
def test_gae_is_the_sum_of_discounted_errors(gamma: float, lam: float) -> None:
    rewards, values = drawn(0) * mask(), drawn(1)
    wanted = np.zeros((B, T))
    for row, (start, stop) in enumerate(spans()):
        ahead = 0.0
        for t in reversed(range(start, stop)):
            after = values[row, t + 1].item() if t + 1 < stop else 0.0
            ahead = rewards[row, t].item() + gamma * after - values[row, t].item() + gamma * lam * ahead
            wanted[row, t] = ahead
    found, returns = gae(rewards, values, mask(), gamma, lam)
    close(found, wanted)
    close(returns, wanted + (values * mask()).numpy())


@pytest.mark.parametrize("shift", [True, False])
def test_whitening_looks_at_the_mask_alone(shift: bool) -> None:
    values = drawn(2, 3.0) + 2
    real = values[mask() > 0].double().numpy()
    scaled = (real - real.mean()) / math.sqrt(real.var(ddof=1) + 1e-8) + (0 if shift else real.mean())
    found = whiten(values, mask(), shift=shift)
    close(found[mask() > 0], scaled)
    assert not found[mask() == 0].any()
    assert torch.equal(found, whiten(torch.where(mask() > 0, values, 1e3), mask(), shift=shift))


def test_kl_estimators_are_those_of_schulman() -> None:
    logprobs, reference = drawn(3, 0.5), drawn(4, 0.5)
    ratio = np.exp(reference.double().numpy() - logprobs.double().numpy())
    close(k1(logprobs, reference), -np.log(ratio))
    close(k3(logprobs, reference), ratio - 1 - np.log(ratio))


def test_k1_and_k3_are_unbiased_and_k3_varies_less() -> None:
    p, q = (torch.randn(8, generator=torch.Generator().manual_seed(n)).double().log_softmax(0) for n in (1, 2))
    truth = float((p.exp() * (p - q)).sum())
    assert [float((p.exp() * each(p, q)).sum()) for each in (k1, k3)] == pytest.approx([truth, truth])
    spread = [float((p.exp() * (each(p, q) - truth) ** 2).sum()) for each in (k1, k3)]
    assert spread[1] < spread[0]


@pytest.mark.parametrize(("kl", "error"), [(6.6, 0.1), (60.0, 0.2), (0.0, -0.2), (6.0, 0.0)])
def test_the_coefficient_follows_the_kl(kl: float, error: float) -> None:
    found = adapted(0.15, kl, target=6.0, horizon=1_000, completions=100)
    assert found == pytest.approx(0.15 * (1 + error * 0.1))


def test_a_step_of_many_completions_keeps_the_coefficient_above_0() -> None:
    assert adapted(0.1, 0.0, target=6.0, horizon=20, completions=128) == pytest.approx(0.08)


def test_the_score_comes_with_the_last_token_and_kl_with_each() -> None:
    logprobs, reference, scores = drawn(5), drawn(6), torch.arange(1.0, B + 1)
    wanted = -0.3 * (logprobs - reference).double().numpy() * mask().numpy()
    for row, (_, stop) in enumerate(spans()):
        wanted[row, stop - 1] += row + 1
    close(token_rewards(logprobs, reference, scores, mask(), 0.3), wanted)


def surrogate(ratio: float, advantage: float, low: float, high: float) -> float:
    return -min(ratio * advantage, min(max(ratio, 1 - low), 1 + high) * advantage)


def test_the_policy_loss_is_clipped_on_the_side_that_would_gain() -> None:
    log_ratio, gains = drawn(7, 0.4), drawn(8)
    loss, held = clipped_surrogate(log_ratio, gains, 0.2, 0.28)
    ratios = log_ratio.double().exp().numpy()
    wanted = np.vectorize(surrogate)(ratios, gains.double().numpy(), 0.2, 0.28)
    close(loss, wanted)
    gain = gains.numpy()
    assert torch.equal(held > 0, torch.from_numpy(((ratios > 1.28) & (gain > 0)) | ((ratios < 0.8) & (gain < 0))))
    assert 0 < held.mean() < 1


@pytest.mark.parametrize("value_clip", [0.2, 0.0])
def test_both_losses_of_ppo_are_sums_over_the_mask(value_clip: float) -> None:
    logprobs, old, gains = drawn(9, 0.3), drawn(10, 0.3), drawn(11)
    values, old_values, returns = drawn(12), drawn(13), drawn(14)
    settings = PPO(value_clip=value_clip)
    wanted = np.zeros(5)
    for row, (start, stop) in enumerate(spans()):
        for t in range(start, stop):
            ratio = math.exp(logprobs[row, t].item() - old[row, t].item())
            value, before, back = (x[row, t].item() for x in (values, old_values, returns))
            near = min(max(value, before - value_clip), before + value_clip) if value_clip else value
            policy = surrogate(ratio, gains[row, t].item(), 0.2, 0.2)
            plain = -ratio * gains[row, t].item()
            wanted += [
                policy,
                max((value - back) ** 2, (near - back) ** 2) / 2,
                ratio,
                policy > plain,
                abs(math.log(ratio)),
            ]
    found = ppo_losses(logprobs, values, old, old_values, gains, returns, mask(), settings=settings)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5)


def test_explained_variance_is_one_for_a_perfect_critic() -> None:
    returns = drawn(15)
    assert explained_variance(returns, returns, mask()) == pytest.approx(1)
    assert explained_variance(torch.zeros(B, T), returns, mask()) == pytest.approx(0, abs=1e-6)
    real = returns[mask() > 0].double()
    assert float(masked_variance(returns, mask())) == pytest.approx(float(real.var()), rel=1e-5)


def test_running_moments_are_those_of_all_numbers_together() -> None:
    dice, moments = np.random.default_rng(0), Moments()
    parts = [dice.normal(3, 2, size) for size in (1, 7, 30)]
    for part in parts:
        moments.add(part.tolist())
    every = np.concatenate(parts)
    assert (moments.count, moments.mean, moments.std) == pytest.approx((38, every.mean(), every.std()))


@pytest.mark.parametrize("spread", ["group", "batch", "none"])
def test_advantages_are_rewards_within_their_group(spread: str) -> None:
    rewards = np.array([1, 0, 0, 1, 5, 5, 5, 5], np.float32)
    centred = np.array([0.5, -0.5, -0.5, 0.5, 0, 0, 0, 0])
    over = {"group": np.std([1, 0, 0, 1], ddof=1) + 1e-4, "batch": np.std(rewards, ddof=1) + 1e-4, "none": 1}[spread]
    np.testing.assert_allclose(advantages(rewards, 4, spread), centred / over, rtol=1e-5)


@pytest.mark.parametrize("correct", [True, False])
@pytest.mark.parametrize("normalise", ["sequence", "token", "constant"])
def test_the_loss_of_grpo_is_the_weighted_sum_of_the_papers(normalise: str, correct: bool) -> None:
    logprobs, old, reference, gains = drawn(16, 0.3), drawn(17, 0.3), drawn(18, 0.3), drawn(19)[:, 0]
    total = 0.0
    for row, (start, stop) in enumerate(spans()):
        weight = {"sequence": 1 / (B * (stop - start)), "token": 1 / mask().sum().item(), "constant": 1 / (B * 12)}
        for t in range(start, stop):
            ratio = math.exp(logprobs[row, t].item() - old[row, t].item())
            log_r = reference[row, t].item() - logprobs[row, t].item()
            kl = (math.exp(log_r) - 1 - log_r) * (ratio if correct else 1)
            total += weight[normalise] * (surrogate(ratio, gains[row].item(), 0.2, 0.28) + 0.1 * kl)
    weights = token_weights(mask(), normalise, 12)
    loss, _ = grpo_loss(logprobs, old, reference, gains, weights, low=0.2, high=0.28, beta=0.1, correct=correct)
    assert loss.item() == pytest.approx(total, abs=1e-6)
