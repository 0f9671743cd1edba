"""Writes workbench.toml, the complete and commented example, from the specs: `make settings`.

Every key stands there with its default (or a sample, where there is none) behind a `#`, so that the file changes
nothing: it is the nearest one for whoever starts in the root of a checkout, and must not hide the user's own.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import msgspec

from stages.store import strict
from stages.store.specs import STAGES
from workbench.settings import TABLES

WIDTH = 118
HEAD = """\
Settings of Workbench: every key with its default. Remove the # in front of a key to change it, here or in a
workbench.toml of your own: the nearest one from the current folder upward comes first, then the one in the user's
configuration folder (`workbench doctor` names the files that apply). Options of the command line and fields of a form
come before both. A mistake in such a file is refused with the key, what was expected and the nearest known name.
"""
KEYS = """\
Keys by the id of what they do, several separated by commas; `?` in the app shows the keys of where you are.
"""
SAMPLES = {
    "paths.workspace": "~/workbench",
    "retrieval.source": "notes",
    "retrieval.frame": "Use this:\\n{passages}\\n{question}",
    "build.sources": ["notes", "letters/1999.txt"],
    "build.max_characters": 100_000,
    "build.max_line": 10_000,
    "build.max_same_answer": 10,
    "build.min_words": 5,
    "classify.context": 128,
    "classify.steps": 1_000,
    "classify.micro_batch": 8,
    "classify.lr": 0.0005,
    "classify.threads": 2,
    "assess.max_records": 1_000,
    "assess.threads": 2,
    "reward.context": 1_024,
    "reward.steps": 1_000,
    "reward.micro_batch": 4,
    "reward.lr": 0.0005,
    "reward.threads": 2,
    "report.max_prompts": 1_000,
    "report.threads": 2,
    "label.label_set": "opinions",
    "label.max_prompts": 1_000,
    "label.threads": 2,
    "sft.context": 1_024,
    "sft.steps": 1_000,
    "sft.micro_batch": 4,
    "sft.lr": 0.001,
    "sft.threads": 2,
    "distill.context": 1_024,
    "distill.steps": 1_000,
    "distill.micro_batch": 4,
    "distill.lr": 0.001,
    "distill.threads": 2,
    "dpo.context": 1_024,
    "dpo.steps": 1_000,
    "dpo.micro_batch": 4,
    "dpo.lr": 0.0001,
    "dpo.threads": 2,
    "grpo.steps": 200,
    "grpo.micro_batch": 16,
    "grpo.lr": 3e-05,
    "grpo.threads": 2,
    "grpo.reward_length": 40,
    "grpo.kl_budget": 5.0,
    "ppo.steps": 200,
    "ppo.micro_batch": 16,
    "ppo.lr": 3e-05,
    "ppo.threads": 2,
    "ppo.reward_length": 40,
    "ppo.kl_budget": 5.0,
    "ppo.kl_target": 6.0,
    "ppo.value_lr": 0.0001,
    "chat.seed": 0,
    "sample.max_prompts": 100,
    "sample.top_k": 50,
    "best_of.min_score": 0.5,
    "best_of.max_prompts": 100,
    "best_of.reward_length": 40,
    "best_of.threads": 2,
    "importing.source": "~/models/SmolLM2-135M",
    "labels.annotator": "ada",
    "pretrain.lr": 0.003,
    "pretrain.layers": 4,
    "pretrain.heads": 4,
    "pretrain.width": 128,
    "pretrain.context": 64,
    "pretrain.micro_batch": 4,
    "pretrain.threads": 2,
    "bert.lr": 0.001,
    "bert.layers": 4,
    "bert.heads": 4,
    "bert.width": 128,
    "bert.context": 64,
    "bert.micro_batch": 4,
    "bert.threads": 2,
    "t5.lr": 0.003,
    "t5.layers": 4,
    "t5.heads": 4,
    "t5.width": 128,
    "t5.context": 64,
    "t5.micro_batch": 4,
    "t5.threads": 2,
    "transformer_xl.lr": 0.001,
    "transformer_xl.layers": 4,
    "transformer_xl.heads": 4,
    "transformer_xl.width": 128,
    "transformer_xl.context": 128,
    "transformer_xl.memory": 256,
    "transformer_xl.micro_batch": 4,
    "transformer_xl.threads": 2,
    "seq2seq.prefix": "translate: ",
    "seq2seq.context": 256,
    "seq2seq.steps": 1_000,
    "seq2seq.micro_batch": 4,
    "seq2seq.lr": 0.001,
    "seq2seq.threads": 2,
}
"""What stands in the comment of a key that has no default."""


def example() -> str:
    """The whole file."""
    lines = [f"# {line}" for line in HEAD.splitlines()]
    for name, spec in {**TABLES, **STAGES}.items():
        lines += ["", *_table(name, spec)]
        if name == "app":
            lines += ["", "[keys]", *(f"# {line}" for line in KEYS.splitlines()), '#"app.quit" = "q,f10"']
    return "\n".join(lines) + "\n"


def _table(name: str, spec: type[msgspec.Struct]) -> Iterator[str]:
    yield f"[{name}]"
    yield from _comment((spec.__doc__ or "").strip().splitlines()[0])
    group = ""
    for field in strict.fields(spec):
        if field.group != group:
            group = field.group
            yield f"# -- {group}"
        yield from _comment(_sentence(field))
        missing = field.required or field.default is None
        value = SAMPLES.get(f"{name}.{field.name}", "") if missing else field.default
        yield f"#{field.name} = {toml(value)}"


def _sentence(field: strict.Field) -> str:
    expected = field.expected.removesuffix(", or nothing")
    return f"{field.description} ({expected[0].upper()}{expected[1:]}{', in ' + field.unit if field.unit else ''}.)"


def _comment(text: str) -> Iterator[str]:
    return (f"# {line}" for line in textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False))


def toml(value: Any) -> str:
    """A TOML literal: strings and lists of strings are written as in JSON, which TOML reads alike."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:_}" if abs(value) >= 10_000 else str(value)
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    sys.stdout.write(example())
