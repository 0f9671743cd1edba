"""What can be set for every stage that improves a policy on its own completions. A stage adds its own."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec

from stages.store.specs.base import about
from stages.store.specs.tuning import Answering

Reward = Literal["auto", "model", "exact", "world", "pattern", "length", "python"]
RewardPattern = Annotated[str, about("Regular expression that `pattern` looks for.", group="reward")]
RewardLength = Annotated[
    Annotated[int, msgspec.Meta(ge=1)] | None,
    about("Tokens that `length` asks for; empty: the longer, the better.", unit="tokens", group="reward"),
]
RewardFile = Annotated[
    str,
    about(
        "Python file with `def reward(prompt, completion, answer) -> float`, run by the worker as you.", group="reward"
    ),
]


class PolicyGradient(Answering, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Improve a policy on its own completions."""

    GROUPS: ClassVar[tuple[str, ...]] = ("prompts", "reward", "loss", "method", "training", "machine", "watching")

    template: Annotated[
        str,
        about(
            "Chat template: auto (the model's own, else chatml), chatml, raw, or a .jinja file.",
            min_length=1,
            group="prompts",
        ),
    ] = "auto"
    part: Annotated[
        Literal["any", "sft", "reward", "policy", "eval"],
        about("Only prompts of this part of the set; held-out ones are taken whatever their part.", group="prompts"),
    ] = "any"
    batch_size: Annotated[
        int, about("Prompts answered in one step.", unit="prompts", ge=1, le=1_048_576, group="prompts")
    ] = 32
    max_new_tokens: Annotated[int, about("Longest completion.", unit="tokens", ge=1, le=65_536, group="prompts")] = 64
    temperature: Annotated[
        float, about("Completions are drawn from softmax(logits / temperature).", gt=0, le=10, group="prompts")
    ] = 1.0
    slots: Annotated[
        int, about("Completions that a process writes at once, at most.", ge=1, le=4_096, group="machine")
    ] = 256

    reward: Annotated[
        Reward,
        about(
            "What scores completions. model: the reward model that is given. exact: 1 for the prompt's known "
            "answer, else 0. world: the starter world's rule, 0 to 2. pattern: 1 where reward_pattern is found. "
            "length: tokens. python: a function of your own. auto: the model if one is given, else exact.",
            group="reward",
        ),
    ] = "auto"
    reward_pattern: RewardPattern = ""
    reward_length: RewardLength = None
    reward_file: RewardFile = ""
    missing_end_penalty: Annotated[
        float, about("Taken from the reward of a completion that does not come to an end.", ge=0, group="reward")
    ] = 1.0

    passes: Annotated[int, about("Times that the rollouts of a step are learnt from.", ge=1, le=100, group="loss")] = 1
    minibatches: Annotated[
        int, about("Updates in a pass: the rollouts are divided into so many parts.", ge=1, le=4_096, group="loss")
    ] = 1
    clip_low: Annotated[
        float, about("A token's probability ratio is clipped below 1 minus this.", ge=0, lt=1, group="loss")
    ] = 0.2
    clip_high: Annotated[
        float, about("And above 1 plus this; DAPO's clip-higher is 0.28.", ge=0, le=100, group="loss")
    ] = 0.2

    epochs: Annotated[float, about("Times that every prompt is asked.", gt=0, le=100_000, group="training")] = 1.0
    steps: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=100_000_000)] | None,
        about("Steps, each of rollouts and updates; empty: as the epochs say.", unit="steps", group="training"),
    ] = None
    micro_batch: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=1_048_576)] | None,
        about(
            "Completions computed at once, at most; halved until they fit the memory. Empty: a minibatch, or of "
            "several processes each its share of one.",
            unit="completions",
            group="training",
        ),
    ] = None
    lr: Annotated[
        Annotated[float, msgspec.Meta(gt=0, le=1)] | None,
        about(
            "Peak learning rate of AdamW; empty: 0.004 / width, which is 3e-5 for tiny, and four times that for lora.",
            group="training",
        ),
    ] = None
    warmup: Annotated[
        int, about("Steps of linear warm-up; at most a tenth of all.", unit="steps", ge=0, group="training")
    ] = 5
    weight_decay: Annotated[float, about("Decoupled weight decay, on matrices only.", ge=0, le=1, group="training")] = (
        0.0
    )
    beta2: Annotated[float, about("AdamW's decay of the mean square.", ge=0, lt=1, group="training")] = 0.95
    seed: Annotated[int, about("Seed of all that is drawn.", ge=0, le=2**31 - 1, group="training")] = 0

    eval_every: Annotated[
        int, about("Steps between looks at held-out prompts.", unit="steps", ge=1, group="watching")
    ] = 10
    eval_prompts: Annotated[
        int, about("Held-out prompts answered then, the likeliest way.", unit="prompts", ge=1, group="watching")
    ] = 128
    checkpoint_every: Annotated[int, about("Steps between checkpoints.", unit="steps", ge=1, group="watching")] = 20
    sample_every: Annotated[
        int,
        about("Steps between rollouts kept to read, and answers to fixed prompts; 0: none.", ge=0, group="watching"),
    ] = 20
    max_kl: Annotated[
        float,
        about(
            "The run pauses when the KL from the reference passes this.", unit="nats an answer", gt=0, group="watching"
        ),
    ] = 10.0
    max_length_ratio: Annotated[
        float,
        about("The run pauses when answers are longer than at the start by this factor.", gt=1, group="watching"),
    ] = 1.7
    pause_on_alarm: Annotated[
        bool, about("Pause when KL or length leaves its band; else only the alarm is raised.", group="watching")
    ] = True
    kl_budget: Annotated[
        Annotated[float, msgspec.Meta(gt=0)] | None,
        about(
            "The best checkpoint has the highest held-out reward among those with no more held-out KL than this. "
            "Empty: max_kl.",
            unit="nats an answer",
            group="watching",
        ),
    ] = None
