"""Log-probabilities and entropy against log-softmax over all logits, in one piece and in chunks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from stages.models import logprobs
from stages.models.decoder import Decoder, new_decoder
from stages.models.logprobs import share_prompts, token_logprobs, token_logprobs_and_entropy
from stages.models.loss import IGNORED
from stages.store.presets import ModelConfig


@pytest.fixture
def model() -> Decoder:
    config = ModelConfig(layers=2, heads=2, width=16, context=64, vocab_size=260)
    return new_decoder(config, seed=3)


def batch(model: Decoder) -> tuple[torch.Tensor, torch.Tensor]:
    dice = torch.Generator().manual_seed(1)
    tokens_BT = torch.randint(0, model.config.vocab_size, (3, 11), generator=dice)
    targets_BT = torch.randint(0, model.config.vocab_size, (3, 11), generator=dice)
    targets_BT[0, :4] = targets_BT[2, 7:] = IGNORED
    return tokens_BT, targets_BT


@pytest.mark.parametrize("at_once", [2**24, 700])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_they_are_those_of_all_logits(
    model: Decoder, monkeypatch: pytest.MonkeyPatch, at_once: int, temperature: float
) -> None:
    monkeypatch.setattr(logprobs, "AT_ONCE", at_once)
    tokens_BT, targets_BT = batch(model)
    found_BT, entropy_BT = token_logprobs_and_entropy(model, tokens_BT, targets_BT, temperature=temperature)
    log_p = (model(tokens_BT).double() / temperature).log_softmax(-1)
    kept = targets_BT != IGNORED
    wanted = log_p.gather(2, targets_BT.clamp(min=0)[..., None])[..., 0]
    assert torch.allclose(found_BT[kept].double(), wanted[kept], atol=1e-5)
    assert torch.allclose(entropy_BT[kept].double(), -(log_p.exp() * log_p).sum(-1)[kept], atol=1e-5)
    assert not found_BT[~kept].any()
    assert not entropy_BT[~kept].any()


def test_chunks_give_the_same_gradient(model: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens_BT, targets_BT = batch(model)
    gradients = []
    for at_once in (2**24, 700):
        monkeypatch.setattr(logprobs, "AT_ONCE", at_once)
        model.zero_grad()
        token_logprobs(model, tokens_BT, targets_BT).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for whole, chunked in zip(*gradients, strict=True):
        assert torch.allclose(whole, chunked, rtol=1e-4, atol=1e-5)


def test_packed_documents_give_what_padded_rows_give(model: Decoder) -> None:
    tokens_BT, targets_BT = batch(model)
    documents = torch.tensor([0, 11, 22, 33])
    packed = token_logprobs(model, tokens_BT.reshape(1, -1), targets_BT.reshape(1, -1), documents)
    assert torch.allclose(packed.view(3, 11), token_logprobs(model, tokens_BT, targets_BT), atol=1e-5)


def test_a_batch_without_targets_gives_zeros(model: Decoder) -> None:
    tokens_BT, _ = batch(model)
    found = token_logprobs(model, tokens_BT, torch.full_like(tokens_BT, IGNORED))
    assert not found.any()
    found.sum().backward()


@pytest.mark.parametrize("lengths", [(9, 9), (9, 5)], ids=["prompts of one length", "of two"])
@pytest.mark.parametrize(
    "shape",
    [
        {},
        {
            "family": "llama",
            "norm_kind": "rms",
            "positions": "rotary",
            "bias": False,
            "activation": "silu",
            "gated": True,
        },
    ],
)
def test_prompts_read_once_change_nothing(
    monkeypatch: pytest.MonkeyPatch, lengths: tuple[int, int], shape: dict[str, Any]
) -> None:
    """Two prompts with four completions each, from one token to six, in mixed order: values and gradients."""
    model = new_decoder(ModelConfig(layers=2, heads=2, width=16, context=64, vocab_size=50, **shape), seed=3)
    dice = torch.Generator().manual_seed(1)
    tokens_BT = torch.randint(0, 50, (8, 14), generator=dice)
    targets_BT = torch.full_like(tokens_BT, IGNORED)
    for row in range(8):
        length = lengths[row % 2]
        tokens_BT[row, :length] = tokens_BT[row % 2, :length]
        said = slice(length - 1, length + (1, 6, 3, 5, 2, 4, 6, 0)[row] - 1)
        targets_BT[row, said] = torch.randint(0, 50, targets_BT[row, said].shape, generator=dice)
    assert share_prompts(model, tokens_BT, targets_BT) is not None
    found = []
    for most in (logprobs.MOST_SHARED, 0.0):
        monkeypatch.setattr(logprobs, "MOST_SHARED", most)
        model.zero_grad()
        values, entropy = token_logprobs_and_entropy(model, tokens_BT, targets_BT)
        values.square().sum().backward()
        found.append([values, entropy, *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    for once, each in zip(*found, strict=True):
        assert torch.allclose(once, each, rtol=1e-4, atol=1e-5)
