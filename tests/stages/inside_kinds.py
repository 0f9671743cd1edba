"""A small folder of every kind of checkpoint that stages write: families, heads, tasks, adapters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from torch import nn

from stages.data.tokenizer import save_tokenizer, train_tokenizer
from stages.models.decoder import Decoder, new_decoder
from stages.models.encoder import Encoder, new_encoder, save_encoder
from stages.models.heads import new_classifier, save_classifier
from stages.models.hf import save_weights
from stages.models.lora import LoraConfig, add_lora, save_adapter
from stages.models.t5 import T5, new_t5, save_t5
from stages.models.transformer_xl import TransformerXL, new_transformer_xl, save_transformer_xl
from stages.models.value import new_value_model, save_value_model
from stages.store.architecture import ModelConfig
from stages.store.classifiers import Head
from stages.store.records import Task

VOCABULARY = 270
SHAPE: dict[str, Any] = {"layers": 2, "heads": 4, "width": 32, "context": 64, "vocab_size": VOCABULARY}
ROTARY = {"norm_kind": "rms", "positions": "rotary", "bias": False, "activation": "silu", "gated": True, "kv_heads": 2}
DECODERS: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "gpt1": {"norm": "post"},
    "llama": ROTARY | {"tied": False},
    "mistral": ROTARY | {"window": 6, "tied": False},
    "qwen2": ROTARY | {"qkv_bias": True, "out_bias": False},
    "qwen3": ROTARY | {"head_dim": 12, "qk_norm": True},
}
BERT = {"norm": "post", "types": 2, "activation": "gelu"}
T5_TRAITS = {"norm_kind": "rms", "positions": "relative", "bias": False, "activation": "relu"}
XL = {"norm": "post", "positions": "sinusoidal", "activation": "relu", "memory": 16}
XL |= {"bias": False, "mlp_bias": True}
LABELS = {"classify": ["a", "b", "c"], "pair": ["no", "yes"], "choice": [], "tokens": ["O", "B-x", "I-x"]}
WORDS = "the cat sat on the mat and the dog lay on the log one two three "


class Kind(NamedTuple):
    """How to write a folder of the kind, and what its weights can tell."""

    write: Callable[[Path], object]
    by: str
    """The function that writes its weights."""
    head: str = ""
    predicts: bool = True
    """Whether an output layer is among the weights."""


def lively(model: nn.Module) -> Any:
    """Weights large enough that attention is not the same everywhere."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model


def decoder(family: str) -> Decoder:
    model: Decoder = lively(new_decoder(ModelConfig(family=family, **(SHAPE | DECODERS[family])), 3))  # type: ignore[arg-type]
    return model


def encoder() -> Encoder:
    model: Encoder = lively(new_encoder(ModelConfig(family="bert", **(SHAPE | BERT)), 3))
    return model


def t5() -> T5:
    model: T5 = lively(new_t5(ModelConfig(family="t5", **(SHAPE | T5_TRAITS)), 3))
    return model


def recurrent() -> TransformerXL:
    model: TransformerXL = lively(new_transformer_xl(ModelConfig(family="transformer-xl", **(SHAPE | XL)), 3))
    return model


def in_bytes(folder: Path) -> None:
    """Every byte a token, with sentinels."""
    save_tokenizer(train_tokenizer([], "byte", VOCABULARY, split_digits=False, sentinels=4), folder)


def in_pieces(folder: Path) -> None:
    """WordPiece."""
    save_tokenizer(train_tokenizer([WORDS * 8], "wordpiece", VOCABULARY, split_digits=False), folder)


def labels(body: Decoder | Encoder, task: Task, folder: Path, **more: bool) -> None:
    head = Head(task=task, labels=LABELS[task], both_orders=more.pop("both_orders", False))
    in_pieces(folder) if isinstance(body, Encoder) else in_bytes(folder)
    save_classifier(lively(new_classifier(body, head, 5, **more)), folder, pad_id=0)


def language(family: str, folder: Path) -> None:
    in_bytes(folder)
    save_weights(decoder(family), folder)


def reward(family: str, folder: Path) -> None:
    in_bytes(folder)
    save_value_model(new_value_model(decoder(family), 5), folder, pad_id=1)


def adapter(folder: Path) -> None:
    base = folder.parent / "base"
    base.mkdir()
    language("gpt2", base)
    in_bytes(folder)
    model = decoder("gpt2")
    add_lora(model, LoraConfig(rank=2), seed=1)
    save_adapter(lively(model), folder, base)


def policy(folder: Path) -> None:
    """As PPO writes it, its critic beside it."""
    language("gpt2", folder)
    (folder / "value").mkdir()
    save_value_model(new_value_model(decoder("gpt2"), 5), folder / "value", pad_id=1)


def text_to_text(folder: Path, **prefixes: str) -> None:
    in_bytes(folder)
    save_t5(t5(), folder, pad_id=1, eos_id=0, prefixes=prefixes)


def masked(folder: Path) -> None:
    in_pieces(folder)
    save_encoder(encoder(), folder, pad_id=0)


def by_segments(folder: Path) -> None:
    in_bytes(folder)
    save_transformer_xl(recurrent(), folder, eos_id=0, pad_id=1)


def _kinds() -> dict[str, Kind]:
    found = {
        "bert": Kind(masked, "save_encoder"),
        "t5": Kind(text_to_text, "save_t5"),
        "t5 tuned": Kind(lambda folder: text_to_text(folder, questions="q: "), "save_t5"),
        "transformer-xl": Kind(by_segments, "save_transformer_xl"),
        "gpt2 adapter": Kind(adapter, "save_adapter"),
        "gpt2 with its critic": Kind(policy, "save_weights"),
    }
    for family in DECODERS:
        tied = DECODERS[family].get("tied", True)
        found[family] = Kind(lambda folder, family=family: language(family, folder), "save_weights")
        found[f"{family} reward"] = Kind(
            lambda folder, family=family: reward(family, folder), "save_value_model", "reward", tied
        )
        for task in get_args(Task):
            found[f"{family} {task}"] = Kind(
                lambda folder, family=family, task=task: labels(decoder(family), task, folder),
                "save_classifier",
                task,
                tied,
            )
    for task in get_args(Task):
        found[f"bert {task}"] = Kind(
            lambda folder, task=task: labels(encoder(), task, folder), "save_classifier", task, False
        )
        found[f"llama {task} with language"] = Kind(
            lambda folder, task=task: labels(decoder("llama"), task, folder, language=True), "save_classifier", task
        )
    for name, body in (("bert", encoder), ("gpt2", lambda: decoder("gpt2"))):
        found[f"{name} pair in both orders"] = Kind(
            lambda folder, body=body: labels(body(), "pair", folder, both_orders=True),  # type: ignore[operator]
            "save_classifier",
            "pair",
            name == "gpt2",
        )
    return found


KINDS = _kinds()
BY_STAGE = {
    "pretrain": set(DECODERS),
    "bert": {"bert"},
    "t5": {"t5"},
    "transformer_xl": {"transformer-xl"},
    "seq2seq": {"t5 tuned"},
    "classify": {name for name, kind in KINDS.items() if kind.by == "save_classifier"},
    "reward": {name for name, kind in KINDS.items() if kind.by == "save_value_model"},
    "ppo": {"gpt2 with its critic", "gpt2 adapter"},
} | {stage: {"gpt2", "gpt2 adapter"} for stage in ("sft", "distill", "dpo", "grpo")}
"""What each training stage writes."""
