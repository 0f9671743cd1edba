"""What can be set for GRPO."""

from __future__ import annotations

from typing import Annotated, Literal

from stages.store.specs.base import about
from stages.store.specs.policy import PolicyGradient


class GRPO(PolicyGradient, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Improve a policy by groups of completions: those that score above their group's mean become likelier."""

    group: Annotated[int, about("Completions of each prompt.", unit="completions", ge=2, le=4_096, group="prompts")] = 8
    spread: Annotated[
        Literal["group", "batch", "none"],
        about(
            "What advantages are divided by: the spread of their group's rewards, that of all, or nothing (Dr. GRPO).",
            group="loss",
        ),
    ] = "group"
    normalise: Annotated[
        Literal["sequence", "token", "constant"],
        about(
            "sequence: each completion weighs the same (GRPO). token: each token does (DAPO). constant: the sum over "
            "tokens is divided by completions times max_new_tokens (Dr. GRPO).",
            group="loss",
        ),
    ] = "sequence"
    beta: Annotated[float, about("Weight of the KL from the reference, estimated by k3.", ge=0, group="loss")] = 0.04
    kl_correction: Annotated[
        bool,
        about("Weigh the KL by the probability ratio: then its gradient is that of the KL itself.", group="loss"),
    ] = True
    resample: Annotated[
        int,
        about(
            "Times that prompts of dead groups, where all score the same, are replaced by others in a step (DAPO).",
            ge=0,
            le=100,
            group="loss",
        ),
    ] = 0
    overlong: Annotated[
        int,
        about(
            "Last tokens up to max_new_tokens in which a completion loses reward, from 0 to 1 (DAPO's soft overlong "
            "punishment); 0: none. missing_end_penalty comes on top.",
            unit="tokens",
            ge=0,
            le=65_536,
            group="reward",
        ),
    ] = 0
    skip_truncated: Annotated[
        bool,
        about(
            "Learn nothing from completions that do not come to their end (DAPO's overlong filtering). "
            "Their rewards count in their group.",
            group="loss",
        ),
    ] = False
