"""The z-loss of pre-training: ζ log² Z beside each target's −log p, in all four kinds of model and their stages."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from stages.bert import Masked
from stages.models.decoder import new_decoder
from stages.models.encoder import new_encoder
from stages.models.loss import IGNORED
from stages.models.t5 import moved_right, new_t5
from stages.models.transformer_xl import new_transformer_xl
from stages.pretrain import NextToken
from stages.store.architecture import ModelConfig
from stages.store.presets import load_preset
from stages.store.specs import spec_of
from stages.t5 import SpanCorruption
from stages.transformer_xl import Recurrent

ZETA = 0.3
"""So much that its share of loss and gradient cannot pass for rounding."""
ROWS, LENGTH, VOCABULARY = 3, 7, 41

Asked = tuple[Any, Callable[..., Tensor], Callable[[], Tensor]]
"""A model in float64, its loss, and its logits in the order of the targets."""


def config(preset: str) -> ModelConfig:
    return msgspec.structs.replace(load_preset(preset), vocab_size=VOCABULARY, dropout=0.0)


def some_tokens() -> Tensor:
    return torch.randint(VOCABULARY, (ROWS, LENGTH))


def decoder(targets: Tensor) -> Asked:
    model, tokens = new_decoder(config("tiny"), 0).double(), some_tokens()
    return model, lambda **how: model(tokens, targets, **how), lambda: model(tokens)


def encoder(targets: Tensor) -> Asked:
    model, tokens = new_encoder(config("tiny-bert"), 0).double(), some_tokens()
    return model, lambda **how: model(tokens, targets, **how), lambda: model.logits(model.hidden_states(tokens))


def encoder_decoder(targets: Tensor) -> Asked:
    model, read = new_t5(config("tiny-t5"), 0).double(), some_tokens()
    written = moved_right(targets.clamp(min=0), 0)
    return (
        model,
        lambda **how: model(read, written, targets, **how),
        lambda: model.logits(model.hidden_states(read, written)),
    )


def recurrent(targets: Tensor) -> Asked:
    model, tokens = new_transformer_xl(config("tiny-transformer-xl"), 0).double(), some_tokens()
    memory = model.empty_memory(ROWS)
    return (
        model,
        lambda **how: model(tokens, targets, memory, **how)[0],
        lambda: model.logits(model.hidden_states(tokens, memory)[0]),
    )


@pytest.mark.parametrize("kind", [decoder, encoder, encoder_decoder, recurrent])
def test_the_loss_and_its_gradient_are_those_of_the_formula_in_float64(kind: Callable[[Tensor], Asked]) -> None:
    torch.manual_seed(0)
    targets = some_tokens()
    targets[0, 2:5] = IGNORED
    model, loss, logits = kind(targets)
    kept = targets.flatten() != IGNORED
    counted, wanted = logits().reshape(-1, VOCABULARY)[kept], targets.flatten()[kept]
    log_z = counted.exp().sum(-1).log()
    plain = (log_z - counted.gather(1, wanted[:, None])[:, 0]).mean()
    formula = plain + ZETA * log_z.square().mean()
    found = loss(z_loss=ZETA)
    torch.testing.assert_close(loss(), plain, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found, formula, rtol=1e-10, atol=1e-10)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    gradients = [torch.autograd.grad(each, weights, allow_unused=True) for each in (found, formula)]
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-10)


class Recorder:
    """Stands for a model: keeps what weight of log² Z it was asked for."""

    def __init__(self, answer: Any) -> None:
        self.weights: list[float] = []
        self.tokens, self.answer = torch.zeros(1), answer

    def __call__(self, *_: Any, z_loss: float = 0.0) -> Any:
        self.weights.append(z_loss)
        return self.answer


@pytest.mark.parametrize(
    ("stage", "objective"),
    [("pretrain", NextToken), ("bert", Masked), ("t5", SpanCorruption), ("transformer_xl", Recurrent)],
)
def test_the_setting_reaches_the_loss_of_every_stage(stage: str, objective: Any) -> None:
    assert spec_of(stage)().z_loss == 0.0  # type: ignore[attr-defined]
    loss = torch.tensor(1.0)
    model = Recorder((loss, loss) if stage == "transformer_xl" else loss)
    blocks = np.zeros((2, 5), np.int64)
    asked = object.__new__(objective)
    asked.model, asked.settings = model, msgspec.structs.replace(spec_of(stage)(), z_loss=ZETA)
    asked.batch = None
    asked.text = SimpleNamespace(
        batch=lambda step, rows: blocks, whole_batch=lambda step: (blocks, None), part=lambda rows: 1.0
    )
    asked.streams = SimpleNamespace(at=lambda step: blocks)
    asked._asked = lambda *_: (torch.zeros(2, 4), torch.zeros(2, 4))
    if stage == "transformer_xl":
        asked._read(0, range(2), loss)
    else:
        asked.loss(0, range(2))
    assert model.weights == [ZETA]


def test_validation_of_pretraining_is_without_it() -> None:
    model = Recorder(torch.tensor(1.0))
    text = SimpleNamespace(
        validated=lambda blocks, together: iter([np.zeros((2, 5), np.int64)]),
        length=4,
        tokens=SimpleNamespace(val=[0] * 8, val_bytes=8),
    )
    asked = NextToken(model, spec_of("pretrain")(z_loss=ZETA), None, text)  # type: ignore[arg-type, call-arg]
    assert asked.validate(2, 2)["val/loss"] == 1.0 and model.weights == [0.0]
