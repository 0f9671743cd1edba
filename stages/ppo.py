"""PPO: completions earn a reward, less for straying from the reference; a value model says what was to be expected.

    score = reward, normalised if asked, − penalty if no end was written
    r_t = − β (log π_old(x_t) − log π_ref(x_t)) + [t is the last] score        δ_t = r_t + γ V(s_{t+1}) − V(s_t)
    A_t = Σ_l (γλ)^l δ_{t+l},  whitened over a step's tokens                     R_t = A_t + V(s_t), before whitening

    L(θ) = mean_t − min( ρ_t A_t, clip(ρ_t, 1 ± ε) A_t )
         + c ½ mean_t max( (V_t − R_t)², (clip(V_t, V_old ± ε_v) − R_t)² )
         + γ_ptx (− mean log p over tokens of the pre-training text)

Sources: Schulman et al., Proximal Policy Optimization Algorithms (arXiv 1707.06347), eqs. 7 and 9; for A_t: Schulman et
al., High-Dimensional Continuous Control Using Generalized Advantage Estimation (arXiv 1506.02438), eq. 16; for r_t and
the mix with pre-training: Ouyang et al. (arXiv 2203.02155), eq. 2; for what else makes it work: Huang et al., The N+
Implementation Details of RLHF with PPO (arXiv 2403.17031).

Shapes: B completions, T tokens of prompt and completion less one, as in `stages.policies.rollouts`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.data.blocks import Blocks, token_shards, tokenizer_in
from stages.loop import cosine_lr, load_moments, refuse_no_number, set_up_torch
from stages.models.logprobs import token_logprobs
from stages.optim import AdamW
from stages.policies.course import PolicyCourse
from stages.policies.critic import Critic, Head, open_critic
from stages.policies.kl import adapted
from stages.policies.needs import refuse_uneven_shares
from stages.policies.opening import EPS, open_policy
from stages.policies.policy import Likelihoods, Policy
from stages.policies.rollouts import Rollouts
from stages.policies.surrogate import WeightedMeans, assert_on_policy, clipped_surrogate
from stages.run import Run
from stages.store import compute
from stages.store.errors import UserError
from stages.store.specs.ppo import PPO
from stages.training import distributed
from stages.training.precision import choose_precision

TINY = 1e-8
"""Added to a variance before it divides."""


def run(run: Run) -> dict[str, Any]:
    """Improve the policy until the last step; what was reached."""
    job = prepare(run)
    return job.course.follow(job.step)


def prepare(run: Run) -> Job:
    """Read the prompts, open actor, critic and reference or resume them, and restore the random numbers last."""
    settings = run.settings(PPO)
    if settings.kl_target is not None and settings.kl == 0:
        raise UserError("kl is 0, from where the coefficient cannot adapt to kl_target.", "Set kl above 0.")
    device = set_up_torch(run, deterministic=settings.deterministic)
    looks = settings.minibatches > 1  # else the first update's forward pass is of all rollouts, if they fit the memory
    course = open_policy(run, settings, device, group=1, coefficient=settings.kl, looks=looks)
    policy, opened = course.policy, course.opened
    reward = run.checkpoint("reward") if run.has("reward") else None
    source = opened.checkpoint.path if opened.checkpoint else None
    dtype = choose_precision(policy.progress.precision, device).dtype
    critic = open_critic(
        settings.value,
        policy.model,
        course.base,
        reward,
        source,
        seed=settings.seed,
        dtype=dtype,
        checkpointing=settings.activation_checkpointing,
    )
    optimizer = AdamW(
        critic.own,
        betas=(settings.beta1, settings.beta2),
        weight_decay=settings.weight_decay,
        eps=EPS,
        compute_dtype=dtype,
    )
    course.others["value"] = optimizer
    pad = policy.writer.tokenizer.pad_id
    course.write_more = lambda folder: critic.save(folder, pad_id=pad)
    job = Job(settings, course, critic, optimizer, read_pretraining(run, course))
    course.work = job.work(looks)
    blocks = job.pretraining.batch(0, settings.ptx_batch) if job.pretraining and settings.ptx else None
    course.make_ready(lambda x, y: _trial(critic, x, y, blocks, at_once=settings.minibatches == 1))
    if opened.checkpoint:
        load_moments(opened.checkpoint, optimizer, "value")
    opened.restore_random(settings.seed)
    return job


def _trial(
    critic: Critic, inputs: Tensor, targets: Tensor, blocks: NDArray[np.int64] | None, *, at_once: bool
) -> Tensor:
    """Something whose gradient takes the memory of an update: of actor and critic at once, or one after the other.

    blocks: of the text that is mixed in, each longer than a rollout may be. As many are computed at once.
    """
    if blocks is not None:
        text = torch.from_numpy(blocks[: len(inputs)]).to(inputs.device)
        critic.actor(text[:, :-1], text[:, 1:]).backward()
    if at_once or isinstance(critic.own, Head):
        return torch.stack(critic(inputs, targets, 1.0)).sum()
    critic.values(inputs, targets).sum().backward()
    return token_logprobs(critic.actor, inputs, targets).sum()


def read_pretraining(run: Run, course: PolicyCourse) -> Blocks | None:
    """The blocks of the text that is mixed in, if there is one."""
    if not run.has("pretraining"):
        return None

    def encoding(done: int, total: int) -> None:
        run.progress(done, total, unit="bytes", phase="encoding")

    dataset = run.dataset("pretraining")
    tokens = token_shards(dataset, tokenizer_in(course.base), encoding)
    blocks = Blocks(tokens.train, course.policy.model.config.context, course.settings.seed)
    if not len(blocks):
        raise UserError(f"The text of {dataset.name!r} is shorter than a block of the model's context.")
    refuse_uneven_shares(course.policy.model, run.settings(PPO).ptx_batch, "blocks of text (ptx_batch)")
    return blocks


class Thoughts(NamedTuple):
    """What actor and critic think of rollouts of a step: (B, T) each, 0 where no target is."""

    logprobs: Tensor
    entropy: Tensor
    values: Tensor


class Batch(NamedTuple):
    """Rollouts with what the updates of a step are about: (B, T) each, 0 where no target is."""

    rollouts: Rollouts
    seen: Likelihoods
    values: Tensor
    advantages: Tensor
    returns: Tensor
    first: list[Thoughts]
    """Differentiable, this process's share of them, where the first update is to go on from them: it takes them out."""


@dataclass
class Job:
    """A run of PPO at work."""

    settings: PPO
    course: PolicyCourse
    critic: Critic
    critic_optimizer: AdamW
    pretraining: Blocks | None

    @property
    def policy(self) -> Policy:
        """The one that is improved."""
        return self.course.policy

    def work(self, looks: bool) -> compute.Work:
        """What the run's compute is made up of: the policy's part, the value model's, and the text that is mixed in."""
        settings, policy, work = self.settings, self.policy, self.course.work
        if not isinstance(self.critic.own, Head):
            own = compute.critic(self.critic.own.config, policy.answers.length, passes=settings.passes, looks=looks)
            work = work._replace(per_token=work.per_token + own)
        if self.pretraining is None or not settings.ptx:
            return work
        config = policy.model.config
        tokens = settings.passes * settings.minibatches * settings.ptx_batch * config.context
        each = compute.training(config, config.context, frozen=settings.method == "lora")
        return work._replace(per_step=tokens * each)

    def step(self) -> dict[str, float]:
        """Rollouts, rewards, and the updates they are worth; the step's figures."""
        policy, settings, progress = self.policy, self.settings, self.policy.progress
        rollouts = policy.roll(settings.batch_size)
        raw = policy.scores(rollouts)
        with self.course.pace.step(rollouts.tokens):
            scores = self._shaped(raw) - policy.penalties(rollouts)
            batch, earned = self._estimate(rollouts, scores)
            means, rate = WeightedMeans(), self._rate()
            for number, rows in enumerate(policy.minibatches(len(rollouts))):
                self._update(batch, rows, number, means, rate)
        self.course.show(rollouts, earned.tolist(), batch.seen, batch.advantages)
        figures = policy.measures(rollouts, batch.seen)
        row = {
            **means.figures(),
            "lr": progress.lr * rate,
            "reward/mean": float(earned.mean()),
            "reward/std": float(earned.std(correction=0)),
            "reward/raw": sum(raw) / len(raw),
            "policy/advantage_std": _std(batch.returns - batch.values, rollouts.mask),
            "policy/coefficient": progress.coefficient,
            "value/explained_variance": explained_variance(batch.values, batch.returns, rollouts.mask),
            **figures,
        }
        if settings.kl_target is not None:
            progress.coefficient = adapted(
                progress.coefficient,
                figures["policy/kl"],
                target=settings.kl_target,
                horizon=settings.kl_horizon,
                completions=len(rollouts),
            )
        progress.step += 1
        progress.tokens_seen += rollouts.tokens
        return row

    def _shaped(self, raw: list[float]) -> NDArray[np.float32]:
        """Scores, normalised by all seen so far if they are to be."""
        scores = np.array(raw, np.float32)
        if self.settings.normalise == "none":
            return scores
        moments = self.policy.progress.rewards
        moments.add(raw)
        return ((scores - moments.mean) / np.float32(moments.std + TINY)).astype(np.float32)

    @torch.no_grad()
    def _estimate(self, rollouts: Rollouts, scores: NDArray[np.float32]) -> tuple[Batch, Tensor]:
        """What the actor, the reference and the critic think, and what follows for the updates; and rewards (B,)."""
        policy, settings, mask = self.policy, self.settings, rollouts.mask
        reference = policy.by_reference(rollouts)
        (logprobs, entropy, values), first = policy.micro.until_it_fits(policy.model, lambda: self._think(rollouts))
        seen = Likelihoods(logprobs, entropy, reference)
        rewards = token_rewards(
            logprobs, seen.reference, torch.from_numpy(scores).to(mask.device), mask, policy.progress.coefficient
        )
        earned = rewards.sum(1)
        if settings.whiten_rewards:
            rewards = whiten(rewards, mask, shift=False)
        advantages, returns = gae(rewards, values, mask, settings.gamma, settings.gae_lambda)
        return Batch(rollouts, seen, values, whiten(advantages, mask), returns, first), earned.cpu()

    def _think(self, rollouts: Rollouts) -> tuple[Tensor, list[Thoughts]]:
        """What actor and critic think before any update: log-probabilities, entropies and values (3, B, T).

        Differentiable as well, where the first update is about all rollouts at once: its forward pass is this one.
        """
        temperature, micro, kept = self.settings.temperature, self.policy.micro, list[Thoughts]()
        keep = self.settings.minibatches == 1 and micro.rows >= len(distributed.share(len(rollouts)))

        def think(inputs: Tensor, targets: Tensor) -> Tensor:
            thoughts = Thoughts(*self.critic(inputs, targets, temperature))
            if keep:
                kept.append(thoughts)
            return torch.stack(thoughts).detach()

        with torch.set_grad_enabled(keep):
            return self.policy.in_parts(rollouts, 3, think), kept

    def _update(self, batch: Batch, rows: NDArray[np.int64], number: int, means: WeightedMeans, rate: float) -> None:
        """One update of actor and critic, from these rows and, if there is one, the pre-training text."""
        policy, settings, progress = self.policy, self.settings, self.policy.progress
        count = float(batch.rollouts.mask[rows].sum())
        figures, mixed_in = policy.micro.until_it_fits(policy.model, lambda: self._gather(batch, rows, count, number))
        norm = policy.optimizer.clip(settings.clip)
        self.critic_optimizer.clip(settings.clip)
        sums = figures / count
        loss, value_loss, ratio, clipped, off = sums.unbind()
        total = float(loss + settings.value_coefficient * value_loss) + mixed_in
        refuse_no_number(progress.step + 1, total, norm)
        if number == 0:
            assert_on_policy(progress, float(off))
            means.add(1.0, **{"policy/ratio_first": ratio})
        means.add(count, **{"policy/ratio": ratio, "policy/clipped": clipped, "value/loss": value_loss})
        means.add(1.0, **{"train/loss": torch.tensor(total), "grad_norm": torch.tensor(norm)})
        if self.pretraining is not None:
            means.add(1.0, **{"train/pretraining": torch.tensor(mixed_in)})
        policy.optimizer.step(progress.lr * rate)
        self.critic_optimizer.step((settings.value_lr or progress.lr) * rate)

    def _gather(self, batch: Batch, rows: NDArray[np.int64], count: float, number: int) -> tuple[Tensor, float]:
        """Gradients of an update, gathered in both optimisers; the sums over tokens that `ppo_losses` gives, and the
        loss on the pre-training text, times γ_ptx."""
        mask, mixed_in = batch.rollouts.mask, 0.0
        sums, first = torch.zeros(5, device=mask.device), True
        rows = np.arange(len(batch.rollouts)) if batch.first else rows  # these are all of them, in their first order
        self.critic.own.zero_grad(set_to_none=True)  # those of an update that ran out of memory
        for part, inputs, targets in self.policy.parts(batch.rollouts, rows):
            sums += self._backward(batch, part, inputs, targets, mask[part, : inputs.shape[1]], count)
            self._take(first=first)
            first = False
        if first:  # a process without rows adds nothing
            self._take(first=True)
        for loss in self._pretraining_losses(number):
            loss.backward()
            self.policy.optimizer.gather(first=False)
            mixed_in += loss.item()
        distributed.all_reduce_sum(sums)
        return sums, distributed.total(mixed_in)[0]

    def _backward(
        self, batch: Batch, part: NDArray[np.int64], inputs: Tensor, targets: Tensor, mask: Tensor, count: float
    ) -> Tensor:
        """Gradients of some rows, and the sums that `ppo_losses` gives.

        A critic that is a model of its own comes after the actor, so that the activations of one of them are held.
        """
        settings, critic, width = self.settings, self.critic, inputs.shape[1]
        first = batch.first.pop() if batch.first else None
        old_logprobs, old_values, advantages, returns = (
            each[part, :width] for each in (batch.seen.logprobs, batch.values, batch.advantages, batch.returns)
        )

        def losses(logprobs: Tensor, values: Tensor) -> Tensor:
            return ppo_losses(logprobs, values, old_logprobs, old_values, advantages, returns, mask, settings=settings)

        if isinstance(critic.own, Head):
            logprobs, _, values = first or critic(inputs, targets, settings.temperature)
            found = losses(logprobs, values)
            ((found[0] + settings.value_coefficient * found[1]) / count).backward()
            return found.detach()
        logprobs = (
            first.logprobs if first else token_logprobs(critic.actor, inputs, targets, temperature=settings.temperature)
        )
        (losses(logprobs, old_values)[0] / count).backward()
        found = losses(logprobs.detach(), first.values if first else critic.values(inputs, targets))
        (settings.value_coefficient * found[1] / count).backward()
        return found.detach()

    def _take(self, *, first: bool) -> None:
        self.policy.optimizer.gather(first=first)
        self.critic_optimizer.gather(first=first)

    def _pretraining_losses(self, number: int) -> Iterator[Tensor]:
        """γ_ptx times the loss on the next blocks of text, some at a time."""
        if self.pretraining is None or not self.settings.ptx:
            return
        policy, count = self.policy, self.settings.ptx_batch
        updates = self.settings.passes * self.settings.minibatches
        start = (policy.progress.step * updates + number) * count
        blocks = self.pretraining.batch(start, count)
        for part in policy.micro.parts(distributed.share(count)):
            tokens = torch.from_numpy(blocks[part]).to(policy.model.tokens.device)
            loss = policy.model(tokens[:, :-1], tokens[:, 1:])
            yield self.settings.ptx * loss * (len(part) / count)

    def _rate(self) -> float:
        """The learning rate of this step as a share of the peak."""
        course, floor = self.course, self.settings.min_lr_ratio
        return cosine_lr(course.progress.step, peak=1.0, floor=floor, warmup=course.warmup, total=course.steps)


def token_rewards(
    logprobs_BT: Tensor, reference_BT: Tensor, scores_B: Tensor, mask_BT: Tensor, coefficient: float
) -> Tensor:
    """r_t of the formula above (B, T): the KL penalty on each token, the score on the last one."""
    rewards_BT = -coefficient * (logprobs_BT - reference_BT) * mask_BT
    last_B1 = last_targets(mask_BT)[:, None]
    return rewards_BT.scatter_add(1, last_B1, scores_B[:, None].to(rewards_BT.dtype))


def last_targets(mask_BT: Tensor) -> Tensor:
    """The place of each row's last target: (B,) int64."""
    places_T = torch.arange(mask_BT.shape[1], device=mask_BT.device)
    return (places_T * (mask_BT > 0)).amax(1)


def gae(rewards_BT: Tensor, values_BT: Tensor, mask_BT: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """A_t before whitening, and R_t: (B, T) each, 0 where no target is. A row's targets stand side by side.

    The sum over l is a product with a triangular matrix, so that no loop goes over tokens. Nothing follows the last
    target: its next value is 0, whether the completion came to an end or was cut off.
    """
    values_BT = values_BT * mask_BT
    next_BT = torch.cat((values_BT[:, 1:], torch.zeros_like(values_BT[:, :1])), 1)
    delta_BT = (rewards_BT + gamma * next_BT - values_BT) * mask_BT
    places_T = torch.arange(values_BT.shape[1], device=values_BT.device, dtype=values_BT.dtype)
    ahead_TT = places_T[:, None] - places_T  # from t (column) to t + l (row)
    powers_TT = torch.where(ahead_TT >= 0, (gamma * lam) ** ahead_TT.clamp(min=0), 0.0)
    advantages_BT = (delta_BT @ powers_TT) * mask_BT
    return advantages_BT, (advantages_BT + values_BT) * mask_BT


def whiten(values_BT: Tensor, mask_BT: Tensor, *, shift: bool = True) -> Tensor:
    """Values scaled to variance 1 over the mask, and to mean 0 if they are to be shifted; 0 outside the mask.

    The variance is the sample's, with one degree of freedom less (Huang et al., detail 17).
    """
    mean = masked_mean(values_BT, mask_BT)
    variance = masked_variance(values_BT, mask_BT)
    whitened_BT = (values_BT - mean) * torch.rsqrt(variance + TINY)
    return (whitened_BT if shift else whitened_BT + mean) * mask_BT


def masked_mean(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    return (values_BT * mask_BT).sum() / mask_BT.sum()


def masked_variance(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """The sample's variance over the mask."""
    apart_BT = (values_BT - masked_mean(values_BT, mask_BT)) * mask_BT
    return apart_BT.square().sum() / (mask_BT.sum() - 1).clamp(min=1)


def explained_variance(values_BT: Tensor, returns_BT: Tensor, mask_BT: Tensor) -> float:
    """1 − Var(R − V) / Var(R): 1 is a perfect value model, 0 no better than the mean."""
    spread = masked_variance(returns_BT, mask_BT)
    return float(1 - masked_variance(returns_BT - values_BT, mask_BT) / (spread + TINY))


def ppo_losses(
    logprobs: Tensor,
    values: Tensor,
    old_logprobs: Tensor,
    old_values: Tensor,
    advantages: Tensor,
    returns: Tensor,
    mask: Tensor,
    *,
    settings: PPO,
) -> Tensor:
    """Sums over tokens of the policy's loss, the value loss, ρ, 1 where the clip holds, and |log ρ|: (5,).

    All arguments (B, T). The losses are differentiable.
    """
    log_ratio = (logprobs - old_logprobs) * mask
    loss, clipped = clipped_surrogate(log_ratio, advantages, settings.clip_low, settings.clip_high)
    errors = (values - returns).square()
    if settings.value_clip:
        near = old_values + (values - old_values).clamp(-settings.value_clip, settings.value_clip)
        errors = torch.maximum(errors, (near - returns).square())
    figures = (loss, errors / 2, log_ratio.detach().exp(), clipped, log_ratio.detach().abs())
    return torch.stack([(each * mask).sum() for each in figures])


def _std(values_BT: Tensor, mask_BT: Tensor) -> float:
    return float(masked_variance(values_BT, mask_BT).sqrt())
