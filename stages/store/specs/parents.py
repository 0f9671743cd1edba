"""What a run of each stage is made from: the kinds of dataset it reads, and parents beside dataset and checkpoint.

A role is the key of a parent in spec.json, the option of the command (`--teacher`) and the field of the form.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

KINDS: dict[str, tuple[str, ...]] = {
    "pretrain": ("text",),
    "seq2seq": ("labelled", "chat", "prompts"),
    "sft": ("chat",),
    "distill": ("chat", "text"),
    "classify": ("labelled",),
    "reward": ("preference",),
    "dpo": ("preference",),
    "grpo": ("prompts",),
    "ppo": ("prompts",),
}
"""By stage: kinds of dataset it can train on."""


LANGUAGE_MODELS = frozenset(("pretrain", "sft", "distill", "dpo", "grpo", "ppo"))
"""Stages whose checkpoints go on with a text: what others go on from, and what is measured or sampled."""

BASES: dict[str, frozenset[str]] = {"classify": LANGUAGE_MODELS | {"bert"}, "seq2seq": frozenset(("t5", "seq2seq"))}
"""By stage: whose checkpoints it goes on from, where others than language models will do."""


class ExtraParent(NamedTuple):
    """A parent that a stage has beside its dataset and the checkpoint it goes on from."""

    role: str
    about: str
    """For people, one sentence; where the parent may be left out, what happens then."""
    required: bool = True
    of: Literal["checkpoint", "dataset"] = "checkpoint"
    made_by: frozenset[str] = LANGUAGE_MODELS
    """Stages whose checkpoints a form offers for it."""
    called: str = ""
    """What forms call it, where the stage has a setting by the name of the role."""

    @property
    def field(self) -> str:
        """The name of its field in a form."""
        return self.called or self.role


_REFERENCE = ExtraParent(
    "reference", "Model that the policy is held near; left out: the checkpoint it goes on from.", required=False
)
_REWARD = ExtraParent(
    "reward",
    "Reward model that scores completions; left out: as the settings say.",
    False,
    made_by=frozenset(("reward",)),
    called="reward_model",
)

_PRETRAINING = ExtraParent(
    "pretraining", "Text dataset mixed into the updates (PPO-ptx); left out: none.", required=False, of="dataset"
)

EXTRA_PARENTS: dict[str, tuple[ExtraParent, ...]] = {
    "distill": (ExtraParent("teacher", "Model whose predictions are learnt; it must use the same tokenizer."),),
    "dpo": (_REFERENCE,),
    "evaluate": (
        ExtraParent(
            "reference", "Model that the KL of each checkpoint's answers is measured from; left out: none.", False
        ),
    ),
    "grpo": (_REWARD, _REFERENCE),
    "best_of": (_REWARD,),
    "ppo": (_REWARD, _REFERENCE, _PRETRAINING),
}
"""By stage, in the order of the form. A role means the same kind of thing in every stage."""

DATASETS = frozenset(
    {"dataset"} | {one.role for extras in EXTRA_PARENTS.values() for one in extras if one.of == "dataset"}
)
"""Roles of parents that are datasets."""


def extra_parents(stage: str) -> tuple[ExtraParent, ...]:
    """The parents that a stage has beside its dataset and the checkpoint it goes on from."""
    return EXTRA_PARENTS.get(stage, ())


def checkpoint_roles(roles: Iterable[str]) -> list[str]:
    """Of these, the roles of the checkpoints that a run looks at, in order: checkpoint, checkpoint-2 and so on."""

    def number(role: str) -> int:
        return int(role.rpartition("-")[2]) if "-" in role else 0

    return sorted((role for role in roles if role.startswith("checkpoint")), key=number)


def is_checkpoint(role: str) -> bool:
    """Whether a parent of this role is a checkpoint: `checkpoint`, `checkpoint-2`, `teacher` …"""
    return role not in DATASETS and role != "tokenizer"
