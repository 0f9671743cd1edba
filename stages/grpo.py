"""GRPO: of several completions of a prompt, those that score above their mean become likelier.

    L(θ) = Σ_{i,t} w_{i,t} [ − min( ρ_{i,t} A_i, clip(ρ_{i,t}, 1 − ε_low, 1 + ε_high) A_i ) + β k3_{i,t} ]

    A_i = (r_i − mean(r_group)) / (std(r_group) + 10⁻⁴)        ρ_{i,t} = π_θ(x_t) / π_old(x_t)

over completions i of a minibatch of B and their tokens t; k3 estimates the KL from the reference
(`stages.policies.kl`), and is multiplied by ρ where kl_correction is set.

    sequence   w = 1 / (B |x_i|)               Shao et al., DeepSeekMath (arXiv 2402.03300), eq. 3
    token      w = 1 / Σ_i |x_i|               Yu et al., DAPO (arXiv 2503.14476), eq. 8
    constant   w = 1 / (B · longest allowed)   Liu et al., Understanding R1-Zero-Like Training (arXiv 2503.20783),
                                               Dr. GRPO, which does not divide by the spread either

Completions that grow too long may be punished, by up to 1 (`overlong_punishment`), or left out of the loss: w is 0 for
what did not come to its end, Σ_i |x_i| is over the rest, and B counts all. Both: DAPO, section 3.4.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.loop import cosine_lr, refuse_no_number, set_up_torch
from stages.models.logprobs import token_logprobs_and_entropy
from stages.policies.course import PolicyCourse
from stages.policies.kl import k3
from stages.policies.opening import open_policy
from stages.policies.policy import Likelihoods, Policy
from stages.policies.rollouts import Rollouts
from stages.policies.surrogate import WeightedMeans, assert_on_policy, clipped_surrogate
from stages.run import Run
from stages.store.errors import UserError
from stages.store.specs.grpo import GRPO
from stages.training import distributed
from stages.training.updates import add_gradients

TINY = 1e-4
"""Keeps a spread of nearly nothing from making advantages of noise."""


def run(run: Run) -> dict[str, Any]:
    """Improve the policy until the last step; what was reached."""
    job = prepare(run)
    return job.course.follow(job.step)


def prepare(run: Run) -> Job:
    """Read the prompts, open policy and reference or resume them, and restore the random numbers last."""
    settings = run.settings(GRPO)
    if settings.overlong > settings.max_new_tokens:
        raise UserError(
            f"overlong is {settings.overlong:,} tokens, and a completion has at most {settings.max_new_tokens:,}.",
            "Set it below max_new_tokens.",
        )
    device = set_up_torch(run, deterministic=settings.deterministic)
    looks = not sees_itself(settings)
    course = open_policy(run, settings, device, group=settings.group, coefficient=settings.beta, looks=looks)
    model = course.policy.model
    course.make_ready(lambda x, y: token_logprobs_and_entropy(model, x, y)[0].sum())
    course.opened.restore_random(settings.seed)
    return Job(settings, course)


def sees_itself(settings: GRPO) -> bool:
    """Whether a step has one update, which is of the policy that wrote: it need not be read beforehand."""
    return settings.passes == settings.minibatches == 1


@dataclass
class Batch:
    """A step's rollouts, what each is worth (B,), and what policy and reference thought of their tokens.

    alone: the step's one update reads the tokens itself, puts what the policy thinks into `seen`, and goes by that.
    """

    rollouts: Rollouts
    advantages: NDArray[np.float32]
    seen: Likelihoods
    alone: bool


@dataclass
class Job:
    """A run of GRPO at work."""

    settings: GRPO
    course: PolicyCourse

    @property
    def policy(self) -> Policy:
        """The one that is improved."""
        return self.course.policy

    def step(self) -> dict[str, float]:
        """Rollouts, rewards, and the updates they are worth; the step's figures."""
        policy, settings = self.policy, self.settings
        rollouts, rewards, raw, dead_share = self._roll()
        with self.course.pace.step(rollouts.tokens):
            batch = self._batch(rollouts, advantages(rewards, settings.group, settings.spread))
            means = WeightedMeans()
            lr = self._lr()
            for number, rows in enumerate(policy.minibatches(len(rollouts))):
                self._update(batch, rows, means, lr, first=number == 0)
        advantages_B = torch.from_numpy(batch.advantages).to(rollouts.inputs.device)
        self.course.show(rollouts, rewards.tolist(), batch.seen, advantages_B[:, None].expand_as(rollouts.targets))
        policy.progress.step += 1
        policy.progress.tokens_seen += rollouts.tokens
        return {
            **means.figures(),
            "lr": lr,
            "reward/mean": float(rewards.mean()),
            "reward/std": float(rewards.std()),
            "reward/raw": float(raw.mean()),
            "policy/advantage_std": float(batch.advantages.std()),
            "policy/dead_groups": dead_share,
            "policy/coefficient": settings.beta,
            **policy.measures(rollouts, batch.seen),
        }

    def _roll(self) -> tuple[Rollouts, NDArray[np.float32], NDArray[np.float32], float]:
        """Rollouts with their rewards, these before the penalty for a missing end, and the share of dead groups.

        Prompts of dead groups are replaced by the next ones as often as `resample` says; the share is that before.
        """
        policy, group = self.policy, self.settings.group
        rollouts, rewards, raw = self._scored(self.settings.batch_size)
        dead = dead_groups(rewards, group)
        share = float(dead.mean())
        for _ in range(self.settings.resample):
            if not dead.any():
                break
            fresh, fresh_rewards, fresh_raw = self._scored(int(dead.sum()))
            kept = np.flatnonzero(np.repeat(~dead, group)).tolist()
            asked = [*(rollouts.asked[row] for row in kept), *fresh.asked]
            said = [*(rollouts.completions[row] for row in kept), *fresh.completions]
            rollouts = policy.writer.laid_out(asked, said, rollouts.inputs.device)
            rewards, raw = np.append(rewards[kept], fresh_rewards), np.append(raw[kept], fresh_raw)
            dead = dead_groups(rewards, group)
        return rollouts, rewards, raw, share

    def _scored(self, count: int) -> tuple[Rollouts, NDArray[np.float32], NDArray[np.float32]]:
        rollouts = self.policy.roll(count)
        raw = np.array(self.policy.scores(rollouts), np.float32)
        lengths = np.array([len(said) for said in rollouts.completions])
        overlong = overlong_punishment(lengths, self.settings.max_new_tokens, self.settings.overlong)
        return rollouts, raw - self.policy.penalties(rollouts) + overlong, raw

    def _batch(self, rollouts: Rollouts, advantages_B: NDArray[np.float32]) -> Batch:
        if not sees_itself(self.settings):
            return Batch(rollouts, advantages_B, self.policy.likelihoods(rollouts), alone=False)
        zeros = torch.zeros(rollouts.targets.shape, device=rollouts.targets.device)
        seen = Likelihoods(zeros, zeros.clone(), self.policy.by_reference(rollouts))
        return Batch(rollouts, advantages_B, seen, alone=True)

    def _update(self, batch: Batch, rows: NDArray[np.int64], means: WeightedMeans, lr: float, *, first: bool) -> None:
        """One AdamW update from these rows of a batch."""
        policy = self.policy
        learnt_BT = (learnt_mask(batch.rollouts) if self.settings.skip_truncated else batch.rollouts.mask)[rows]
        sums = torch.zeros(3, device=learnt_BT.device)

        def gather() -> float:
            sums.zero_()
            return add_gradients(policy.optimizer, self._losses(batch, rows, learnt_BT, sums))

        loss = policy.micro.until_it_fits(policy.model, gather)
        norm = policy.optimizer.clip(self.settings.clip)
        refuse_no_number(policy.progress.step + 1, loss, norm)
        distributed.all_reduce_sum(sums)
        if batch.alone:
            distributed.all_reduce_sum(batch.seen.logprobs)
            distributed.all_reduce_sum(batch.seen.entropy)
        if count := float(learnt_BT.sum()):
            ratio, clipped, off = (sums / count).unbind()
            if first:
                assert_on_policy(policy.progress, float(off))
                means.add(1.0, **{"policy/ratio_first": ratio})
            means.add(count, **{"policy/ratio": ratio, "policy/clipped": clipped})
        means.add(1.0, **{"train/loss": torch.tensor(loss), "grad_norm": torch.tensor(norm)})
        policy.optimizer.step(lr)

    def _losses(self, batch: Batch, rows: NDArray[np.int64], learnt_BT: Tensor, sums: Tensor) -> Iterator[Tensor]:
        """The loss of as many of these rows at once as fit the memory, part by part; their figures come into `sums`."""
        policy, settings, seen = self.policy, self.settings, batch.seen
        weights_BT = token_weights(learnt_BT, settings.normalise, settings.max_new_tokens)
        place = {int(row): number for number, row in enumerate(rows)}
        for part, inputs, targets in policy.parts(batch.rollouts, rows):
            width = inputs.shape[1]
            logprobs, entropy = token_logprobs_and_entropy(
                policy.model, inputs, targets, temperature=settings.temperature
            )
            if batch.alone:
                seen.logprobs[part, :width], seen.entropy[part, :width] = logprobs.detach(), entropy
            loss, figures = grpo_loss(
                logprobs,
                seen.logprobs[part, :width],
                seen.reference[part, :width],
                torch.from_numpy(batch.advantages[part]).to(inputs.device),
                weights_BT[[place[int(row)] for row in part], :width],
                low=settings.clip_low,
                high=settings.clip_high,
                beta=settings.beta,
                correct=settings.kl_correction,
            )
            sums.add_(figures)
            yield loss

    def _lr(self) -> float:
        progress, course = self.policy.progress, self.course
        floor = progress.lr * self.settings.min_lr_ratio
        return cosine_lr(progress.step, peak=progress.lr, floor=floor, warmup=course.warmup, total=course.steps)


def dead_groups(rewards: NDArray[np.float32], group: int) -> NDArray[np.bool_]:
    """Which groups of completions (B,) score all alike, so that nothing can be learnt from them: (groups,)."""
    return np.ptp(rewards.reshape(-1, group), axis=1) == 0


def advantages(rewards: NDArray[np.float32], group: int, spread: str) -> NDArray[np.float32]:
    """A_i of completions (B,) that stand group by group. spread: what they are divided by: group, batch or none.

    The spread is the sample's, with one degree of freedom less.
    """
    groups = rewards.reshape(-1, group).astype(np.float64)
    centred = groups - groups.mean(1, keepdims=True)
    if spread == "group":
        centred /= groups.std(1, ddof=1, keepdims=True) + TINY
    elif spread == "batch":
        centred /= rewards.astype(np.float64).std(ddof=1) + TINY
    return centred.reshape(-1).astype(np.float32)


def overlong_punishment(lengths: NDArray[np.int64], longest: int, cache: int) -> NDArray[np.float32]:
    """What is added to rewards of completions of so many tokens (B,): 0, and down to -1 over the last `cache` tokens.

    longest: tokens that a completion may have. 0 for all where `cache`, the formula's L_cache, is 0.
    Source: Yu et al., DAPO (arXiv 2503.14476), eq. 13.
    """
    beyond = np.clip(lengths - (longest - cache), 0, cache)
    return (-beyond / max(cache, 1)).astype(np.float32)


def learnt_mask(rollouts: Rollouts) -> Tensor:
    """1.0 where a target is of a completion that came to its end, else 0.0: (B, T) fp32."""
    ended_B = torch.tensor(rollouts.ended, dtype=torch.float32, device=rollouts.targets.device)
    return rollouts.mask * ended_B[:, None]


def token_weights(mask_BT: Tensor, normalise: str, longest: int) -> Tensor:
    """w of the formula above for a minibatch's tokens (B, T). longest: tokens that a completion may have."""
    if normalise == "sequence":
        return mask_BT / mask_BT.sum(1, keepdim=True).clamp(min=1) / len(mask_BT)
    if normalise == "token":
        return mask_BT / mask_BT.sum().clamp(min=1)
    return mask_BT / (len(mask_BT) * longest)


def grpo_loss(
    logprobs_BT: Tensor,
    old_BT: Tensor,
    reference_BT: Tensor,
    advantages_B: Tensor,
    weights_BT: Tensor,
    *,
    low: float,
    high: float,
    beta: float,
    correct: bool = True,
) -> tuple[Tensor, Tensor]:
    """L of the formula above, and the sums over tokens of ρ, of 1 where the clip holds, and of |log ρ|: (3,)."""
    log_ratio_BT = logprobs_BT - old_BT
    loss_BT, clipped_BT = clipped_surrogate(log_ratio_BT, advantages_B[:, None], low, high)
    if beta:
        kl_BT = k3(logprobs_BT, reference_BT)
        loss_BT = loss_BT + beta * (kl_BT * log_ratio_BT.exp() if correct else kl_BT)
    with torch.no_grad():
        real = (weights_BT > 0).float()
        sums = torch.stack([(x * real).sum() for x in (log_ratio_BT.exp(), clipped_BT, log_ratio_BT.abs())])
    return (loss_BT * weights_BT).sum(), sums
