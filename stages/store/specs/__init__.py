"""One spec a stage: the single source of the form, the `--set` keys, the TOML table, the defaults and the help."""

from __future__ import annotations

import msgspec

from stages.store.errors import UserError
from stages.store.names import nearest
from stages.store.specs.assess import Assess
from stages.store.specs.bert import Bert
from stages.store.specs.best_of import BestOf
from stages.store.specs.build import Build
from stages.store.specs.classify import Classify
from stages.store.specs.distill import Distill
from stages.store.specs.dpo import DPO
from stages.store.specs.evaluate import Evaluate
from stages.store.specs.grpo import GRPO
from stages.store.specs.importing import Importing
from stages.store.specs.in_context import InContext
from stages.store.specs.label import Label
from stages.store.specs.ppo import PPO
from stages.store.specs.pretrain import Pretrain
from stages.store.specs.report import Report
from stages.store.specs.reward import Reward
from stages.store.specs.sample import Sample
from stages.store.specs.seq2seq import Seq2Seq
from stages.store.specs.sft import SFT
from stages.store.specs.t5 import SpanCorruption
from stages.store.specs.tokenizer import Tokenizer
from stages.store.specs.transformer_xl import Recurrent

STAGES: dict[str, type[msgspec.Struct]] = {
    "build": Build,
    "importing": Importing,
    "tokenizer": Tokenizer,
    "pretrain": Pretrain,
    "bert": Bert,
    "t5": SpanCorruption,
    "transformer_xl": Recurrent,
    "seq2seq": Seq2Seq,
    "sft": SFT,
    "distill": Distill,
    "classify": Classify,
    "reward": Reward,
    "dpo": DPO,
    "grpo": GRPO,
    "ppo": PPO,
    "evaluate": Evaluate,
    "in_context": InContext,
    "sample": Sample,
    "best_of": BestOf,
    "report": Report,
    "assess": Assess,
    "label": Label,
}
"""By stage: the name of the file in `stages/`, of the spec's file here, and of the table in workbench.toml."""

TRAINING = (
    "pretrain",
    "bert",
    "t5",
    "transformer_xl",
    "seq2seq",
    "sft",
    "distill",
    "classify",
    "reward",
    "dpo",
    "grpo",
    "ppo",
)
"""Stages that train a model: `workbench train STAGE`. They take a place in the device queue."""

ON_DEVICE = (*TRAINING, "evaluate", "in_context", "sample", "best_of", "report", "assess", "label")
"""Stages that run a model, and so wait for their device."""

FROM_CHECKPOINT = ("seq2seq", "sft", "distill", "classify", "reward", "dpo", "grpo", "ppo")
"""Those of them that go on from a checkpoint, with its tokenizer. The others make a new model."""


def on_several_gpus() -> list[str]:
    """Stages that several processes can train together."""
    return [stage for stage in TRAINING if "gpus" in STAGES[stage].__struct_fields__]


def spec_of(stage: str) -> type[msgspec.Struct]:
    """The spec of a stage; UserError naming the nearest otherwise."""
    if stage not in STAGES:
        raise UserError(f"There is no stage {stage!r}.", nearest(stage, STAGES))
    return STAGES[stage]
