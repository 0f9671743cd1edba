"""Transformer-XL: attention by the paper's formula, what is remembered is as if it had been read together."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import pytest
import torch

from stages.models.hf import load_model
from stages.models.transformer_xl import (
    Continuing,
    Layer,
    TransformerXL,
    load_transformer_xl,
    new_transformer_xl,
    save_transformer_xl,
    shifted,
    sinusoids,
)
from stages.store.architecture import ModelConfig
from stages.store.errors import UserError
from stages.store.presets import load_preset
from stages.store.sizes import parameter_count

CONFIG = ModelConfig(
    family="transformer-xl",
    layers=3,
    heads=2,
    head_dim=6,
    width=16,
    ff_width=40,
    context=5,
    memory=20,
    vocab_size=31,
    norm="post",
    positions="sinusoidal",
    qkv_bias=False,
    out_bias=False,
    activation="relu",
)


def random_model(**changes: int) -> TransformerXL:
    """Weights large enough that a mistake anywhere shows."""
    model = new_transformer_xl(msgspec.structs.replace(CONFIG, **changes), 0)
    for number, parameter in enumerate(model.parameters()):
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
        parameter.data.add_(noise * 0.2)
    return model.eval()


def tokens(rows: int, length: int) -> torch.Tensor:
    return torch.randint(0, 31, (rows, length), generator=torch.Generator().manual_seed(1))


def read_in_segments(model: TransformerXL, tokens_BT: torch.Tensor, length: int) -> torch.Tensor:
    """Hidden states (B, T, C), read segment by segment."""
    memory = model.empty_memory(len(tokens_BT))
    parts = []
    for part_BT in tokens_BT.split(length, 1):
        h_NC, memory = model.hidden_states(part_BT, memory)
        parts.append(h_NC.view(*part_BT.shape, -1))
    return torch.cat(parts, 1)


def test_attention_is_that_of_the_paper() -> None:
    """Score by score, in plain loops: equation (c) of section 3.3."""
    model = random_model()
    layer = model.blocks[1]
    assert isinstance(layer, Layer)
    T, M, C, H, D = 4, 3, 16, 2, 6
    dice = torch.Generator().manual_seed(2)
    h, memory = torch.randn(1, T, C, generator=dice), torch.randn(1, M, C, generator=dice)
    u, v = model.content_bias, model.distance_bias
    found = layer._attention(h, memory, sinusoids(M + T, C, h), u, v)
    seen = torch.cat((memory, h), 1)[0]
    q = (h[0] @ layer.query_in.weight).view(T, H, D)
    k, value = (seen @ layer.keys_in.weight).view(M + T, 2, H, D).unbind(1)
    rates = 10_000.0 ** (-torch.arange(0, C, 2) / C)
    wanted = torch.zeros(T, H, D)
    for i in range(T):
        for n in range(H):
            scores = []
            for j in range(M + i + 1):
                angles = (M + i - j) * rates
                far = (torch.cat((angles.sin(), angles.cos())) @ layer.distance_in.weight).view(H, D)[n]
                scores.append(((q[i, n] + u[n]) @ k[j, n] + (q[i, n] + v[n]) @ far) / math.sqrt(D))
            wanted[i, n] = torch.stack(scores).softmax(0) @ value[: M + i + 1, n]
    assert torch.allclose(found[0], wanted.reshape(T, -1) @ layer.attention_out.weight, atol=1e-5)


def test_scores_by_distance_are_shifted_to_their_keys() -> None:
    by_distance = torch.arange(4, -1, -1).expand(1, 1, 3, 5)  # each score is its distance
    moved = shifted(by_distance)[0, 0]
    for query in range(3):
        for key in range(3 + query):
            assert moved[query, key] == 2 + query - key


def test_segments_with_memory_give_what_one_pass_gives() -> None:
    model = random_model()
    tokens_BT = tokens(2, 20)
    whole, _ = model.hidden_states(tokens_BT, model.empty_memory(2))
    assert torch.allclose(read_in_segments(model, tokens_BT, 5), whole.view(2, 20, -1), atol=1e-4)
    assert torch.allclose(read_in_segments(model, tokens_BT, 1), whole.view(2, 20, -1), atol=1e-4)


def test_without_memory_a_segment_knows_nothing_of_those_before() -> None:
    model = random_model(memory=0)
    found = read_in_segments(model, tokens(2, 20), 5)[:, 5:10]
    alone, memory = model.hidden_states(tokens(2, 20)[:, 5:10], model.empty_memory(2))
    assert memory.shape == (3, 2, 0, 16)
    assert torch.allclose(found, alone.view(2, 5, -1), atol=1e-5)


def test_the_memory_keeps_the_last_tokens_and_takes_no_gradient() -> None:
    model = random_model(memory=7)
    _, memory = model.hidden_states(tokens(2, 5), model.empty_memory(2))
    assert memory.shape == (3, 2, 5, 16)
    h, later = model.hidden_states(tokens(2, 5), memory)
    assert later.shape == (3, 2, 7, 16)
    assert not later.requires_grad
    assert torch.equal(later[:, :, :2], memory[:, :, 3:])
    assert h.requires_grad


def test_a_text_is_continued_token_by_token_as_it_would_be_read() -> None:
    model = random_model()
    prompt = tokens(1, 12)
    continuing = Continuing(model, prompt.tolist())
    first = continuing.logits()
    continuing.append(torch.tensor([4]))
    second = continuing.logits()
    whole = torch.cat((prompt, torch.tensor([[4]])), 1)
    h_NC, _ = model.hidden_states(whole, model.empty_memory(1))
    assert torch.allclose(torch.cat((first, second)), model.logits(h_NC[-2:]), atol=1e-4)


def test_it_is_saved_and_opened_with_equal_bits(tmp_path: Path) -> None:
    model = random_model()
    save_transformer_xl(model, tmp_path, eos_id=1, pad_id=0)
    again = load_transformer_xl(tmp_path)
    assert again.config == CONFIG
    for mine, theirs in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    with pytest.raises(UserError, match="Transformer-XL, which only pre-training and chat know"):
        load_model(tmp_path)


def test_the_published_model_is_counted_but_for_the_biases_of_its_adaptive_softmax() -> None:
    """The released training script tells 151,107,538 parameters, and 41,066,400 of them in its blocks."""
    config = load_preset("transformer-xl")
    with torch.device("meta"):
        model = TransformerXL(config)
    count = parameter_count(config)
    assert count.total == sum(parameter.numel() for parameter in model.parameters())
    assert sum(parameter.numel() for parameter in model.blocks.parameters()) == 41_066_400
    clusters = 3
    assert count.total + config.vocab_size + clusters * (config.width + 1) == 151_107_538
