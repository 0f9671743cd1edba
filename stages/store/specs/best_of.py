"""What can be set for best-of-n."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from stages.store.specs.base import about
from stages.store.specs.machine import Device, Precision, Threads
from stages.store.specs.policy import Reward, RewardFile, RewardLength, RewardPattern


class BestOf(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Have every prompt answered n times, score the answers, and make a dataset of the best or of their ranking."""

    n: Annotated[int, about("Answers to each prompt.", ge=1, le=1_024, group="completions")] = 8
    keep: Annotated[
        Literal["best", "ranking"],
        about(
            "best: conversations with the best answer, to fine-tune on (rejection sampling). ranking: preferences "
            "with all different answers.",
            group="completions",
        ),
    ] = "best"
    min_score: Annotated[
        float | None, about("Prompts whose best answer scores less are left out; empty: none.", group="completions")
    ] = None
    part: Annotated[
        Literal["any", "sft", "reward", "policy", "eval"],
        about("Only prompts of this part of the set.", group="completions"),
    ] = "any"
    max_prompts: Annotated[
        Annotated[int, msgspec.Meta(ge=1)] | None,
        about("Prompts of each split at most, the first ones; empty: all.", unit="prompts", group="completions"),
    ] = None
    max_new_tokens: Annotated[
        int, about("Longest answer; one that is cut off is left out.", unit="tokens", ge=1, group="completions")
    ] = 64
    temperature: Annotated[
        float, about("Answers are drawn from softmax(logits / temperature).", gt=0, le=10, group="completions")
    ] = 1.0
    template: Annotated[
        str,
        about(
            "Chat template: auto (the model's own, else chatml), chatml, raw, or a .jinja file.",
            min_length=1,
            group="completions",
        ),
    ] = "auto"
    seed: Annotated[int, about("Seed of all that is drawn.", ge=0, le=2**31 - 1, group="completions")] = 0

    reward: Annotated[
        Reward,
        about(
            "What scores answers: as for grpo. auto: the reward model if one is given, else the prompt's known answer.",
            group="reward",
        ),
    ] = "auto"
    reward_pattern: RewardPattern = ""
    reward_length: RewardLength = None
    reward_file: RewardFile = ""

    slots: Annotated[int, about("Answers written at once.", ge=1, le=4_096, group="machine")] = 256
    device: Device = "auto"
    precision: Precision = "auto"
    threads: Threads = None
