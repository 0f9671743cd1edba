"""What can be set for PPO."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from stages.store.specs.base import about
from stages.store.specs.policy import PolicyGradient


class PPO(PolicyGradient, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Improve a policy by PPO: rewards less a KL penalty, advantages from a value model that learns beside it."""

    batch_size: Annotated[
        int, about("Prompts answered in one step, once each.", unit="prompts", ge=1, le=1_048_576, group="prompts")
    ] = 128
    normalise: Annotated[
        Literal["none", "running"],
        about("running: rewards are shifted and scaled to mean 0 and spread 1, by all seen so far.", group="reward"),
    ] = "none"
    whiten_rewards: Annotated[
        bool, about("Scale the rewards of a step's tokens, KL included, to spread 1.", group="reward")
    ] = False

    passes: Annotated[int, about("Times that the rollouts of a step are learnt from.", ge=1, le=100, group="loss")] = 4
    kl: Annotated[
        float, about("Coefficient of the KL penalty on each token, at the start.", ge=0, le=1_000, group="loss")
    ] = 0.05
    kl_target: Annotated[
        Annotated[float, msgspec.Meta(gt=0)] | None,
        about(
            "The coefficient adapts so that the KL comes to this; empty: it stays.", unit="nats an answer", group="loss"
        ),
    ] = None
    kl_horizon: Annotated[
        int, about("Completions over which it adapts; more is slower.", unit="completions", ge=1, group="loss")
    ] = 10_000
    gamma: Annotated[float, about("Discount of later rewards.", gt=0, le=1, group="loss")] = 1.0
    gae_lambda: Annotated[
        float,
        about("λ of generalised advantage estimation: 0 trusts the values, 1 the rewards.", ge=0, le=1, group="loss"),
    ] = 0.95
    value: Annotated[
        Literal["auto", "reward", "copy", "head"],
        about(
            "Value model. reward: begins as the reward model. copy: begins as the policy, with a new head. "
            "head: a head on the policy itself. auto: reward where there is a reward model, else copy.",
            group="loss",
        ),
    ] = "auto"
    value_coefficient: Annotated[float, about("Weight of the value loss.", gt=0, le=100, group="loss")] = 0.1
    value_clip: Annotated[
        float, about("New values are clipped to the old ones ± this; 0: not clipped.", ge=0, le=1e6, group="loss")
    ] = 0.2
    value_lr: Annotated[
        Annotated[float, msgspec.Meta(gt=0, le=1)] | None,
        about("Peak learning rate of the value model; empty: that of the policy.", group="training"),
    ] = None
    ptx: Annotated[
        float,
        about(
            "Weight of the loss on the text dataset given by --pretraining, which is mixed in (PPO-ptx).",
            ge=0,
            group="loss",
        ),
    ] = 1.0
    ptx_batch: Annotated[
        int, about("Blocks of that text in an update.", unit="blocks", ge=1, le=65_536, group="loss")
    ] = 8
