"""The decoder's own promises: causality, repeatable bits, the loss, the cache."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from stages.models.decoder import Decoder, new_decoder
from stages.models.loss import cross_entropy
from stages.store.presets import ModelConfig, load_preset

SHAPE = {"layers": 2, "heads": 2, "width": 16, "context": 12, "vocab_size": 13}
GPT1 = {"family": "gpt1", "norm": "post"}
MODERN = {"norm_kind": "rms", "positions": "rotary", "gated": True, "bias": False, "activation": "silu", "tied": False}
MISTRAL = MODERN | {"family": "mistral", "kv_heads": 1, "window": 3}
QWEN3 = MODERN | {"family": "qwen3", "kv_heads": 1, "qk_norm": True, "head_dim": 6}
SHAPES = [{}, GPT1, MISTRAL, QWEN3]


def model_of(seed: int = 0, dtype: torch.dtype = torch.float32, **changes: object) -> Decoder:
    return new_decoder(ModelConfig(**(SHAPE | changes)), seed, dtype).eval()


def tokens_of(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 13, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("changes", [*SHAPES, {"bias": False, "tied": False}])
def test_no_token_sees_the_future(changes: dict) -> None:
    model, tokens = model_of(**changes), tokens_of(1, 12)
    changed = tokens.clone()
    changed[0, 7] = (changed[0, 7] + 1) % 13
    before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7:], after[:, 7:])


def test_one_seed_gives_the_same_bits_and_another_does_not() -> None:
    one, same, other = model_of(3), model_of(3), model_of(4)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.tokens, other.tokens)
    torch.manual_seed(99)
    half = model_of(3, torch.bfloat16)
    assert all(torch.equal(a.bfloat16(), b) for a, b in zip(one.parameters(), half.parameters(), strict=True))


def test_weights_start_as_in_gpt2() -> None:
    model = new_decoder(load_preset("small"), 0)
    block = model.blocks[2]
    assert block.attention_in.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert model.tokens.std().item() == pytest.approx(0.02, rel=0.02)
    for residual in (block.attention_out.weight, block.mlp_out.weight):
        assert residual.std().item() == pytest.approx(0.02 / math.sqrt(12), rel=0.02)
    assert (block.norm_1.weight == 1).all() and (block.mlp_in.bias == 0).all()
    loss = model(torch.zeros(1, 8, dtype=torch.int64), torch.arange(8)[None])
    assert loss.item() == pytest.approx(math.log(512), rel=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_loss_is_the_mean_over_targets_that_count(dtype: torch.dtype) -> None:
    logits = torch.randn(6, 13, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    targets = torch.tensor([1, -100, 3, 4, -100, 12])
    loss = cross_entropy(logits, targets)
    log_probabilities = logits.detach().double().log_softmax(-1)
    expected = -torch.stack([log_probabilities[i, targets[i]] for i in (0, 2, 3, 5)]).mean()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    assert logits.grad is not None and (logits.grad[[1, 4]] == 0).all() and logits.grad[0].abs().max() > 0


def test_no_target_at_all_is_a_loss_of_zero() -> None:
    model = model_of()
    loss = model(tokens_of(2, 4), torch.full((2, 4), -100))
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is not None and (p.grad == 0).all() for p in model.parameters())


def test_bf16_follows_fp32() -> None:
    tokens = tokens_of(4, 12)
    losses = [model_of(1, dtype)(tokens, tokens).item() for dtype in (torch.float32, torch.bfloat16)]
    assert losses[0] == pytest.approx(losses[1], abs=0.02)


def test_dropout_acts_in_training_only() -> None:
    model, tokens = model_of(dropout=0.3), tokens_of(1, 8)
    assert torch.equal(model(tokens), model(tokens))
    model.train()
    assert not torch.equal(model(tokens), model(tokens))


def test_a_sequence_beyond_the_context_is_refused() -> None:
    with pytest.raises(ValueError, match="13 tokens"):
        model_of()(tokens_of(1, 13))


@pytest.mark.parametrize("changes", SHAPES)
def test_the_cache_gives_the_logits_of_the_whole_sequence(changes: dict) -> None:
    model, tokens = model_of(**changes), tokens_of(3, 12)
    cache = model.new_cache(3, 12)
    starts = (5, 1, 7)
    for row, n in enumerate(starts):
        first = model.prefill(tokens[row, : n - 1], cache, row) if n > 1 else None
        last = model.prefill(tokens[row, n - 1 : n], cache, row)  # a prefix that grows in two steps
        whole = model(tokens[row : row + 1, :n])[0]
        assert torch.allclose(last, whole[-1], atol=1e-5)
        assert first is None or torch.allclose(first, whole[-2], atol=1e-5)
    for step in range(4):
        logits = model.decode(torch.stack([tokens[row, n + step] for row, n in enumerate(starts)]), cache)
        for row, n in enumerate(starts):
            whole = model(tokens[row : row + 1, : n + step + 1])[0, -1]
            assert torch.allclose(logits[row], whole, atol=1e-5)
    assert cache.lengths.tolist() == [n + 4 for n in starts]


def test_a_cache_that_grows_keeps_what_it_holds() -> None:
    model, tokens = model_of(**MISTRAL), tokens_of(1, 12)
    cache = model.new_cache(2, 6)
    model.prefill(tokens[0, :6], cache, 1)
    cache.grow(12)
    assert cache.room == 12
    last = model.prefill(tokens[0, 6:], cache, 1)
    assert torch.allclose(last, model(tokens)[0, -1], atol=1e-5)


@pytest.mark.parametrize("changes", SHAPES)
def test_packed_documents_are_what_each_is_alone(changes: dict) -> None:
    model, tokens = model_of(**changes), tokens_of(1, 23)
    documents = torch.tensor([0, 7, 7, 8, 19])
    packed = model(tokens, documents=documents)[0]
    for start, end in ((0, 7), (7, 8), (8, 19)):
        assert torch.allclose(packed[start:end], model(tokens[:, start:end])[0], atol=1e-5)
    assert packed.isfinite().all()
    with pytest.raises(ValueError, match="13 tokens"):
        model(tokens, documents=torch.tensor([0, 13]))
    with pytest.raises(ValueError, match="one row"):
        model(tokens_of(2, 4), documents=torch.tensor([0, 4]))


@pytest.mark.parametrize("changes", SHAPES)
def test_some_tokens_alone_have_the_states_and_gradients_that_they_have_among_all(changes: dict) -> None:
    model, tokens, places = model_of(**changes), tokens_of(2, 6), torch.tensor([9, 2, 2, 5])
    for checkpointing in (False, True):
        model.checkpointing = checkpointing
        found, gradients = [], []
        for asked in (None, places):
            h = model.train().hidden_states(tokens, None, asked)
            found.append(h[places] if asked is None else h)
            found[-1].sin().sum().backward()
            gradients.append([parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None])
            model.zero_grad()
        assert torch.allclose(*found, atol=1e-6)
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("changes", [{}, QWEN3 | {"dropout": 0.2}])
def test_checkpointing_gives_the_same_loss_and_gradients(changes: dict) -> None:
    tokens, found = tokens_of(2, 12), []
    for checkpointing in (False, True):
        model = model_of(**changes).train()
        model.checkpointing = checkpointing
        torch.manual_seed(5)
        loss = model(tokens, tokens)
        loss.backward()
        found.append([loss.detach(), *(parameter.grad for parameter in model.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_checkpointing_keeps_less_for_the_backward_pass() -> None:
    kept = []
    for checkpointing in (False, True):
        model = model_of(**QWEN3).train()
        model.checkpointing = checkpointing
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: s.append(t.nbytes) or t, lambda t: t):
            model(tokens_of(4, 12), tokens_of(4, 12))
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 2


def test_a_few_steps_learn_a_repeating_text() -> None:
    model = model_of().train()
    text = torch.arange(48).remainder(5).view(4, 12)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        loss = model(text[:, :-1], text[:, 1:])
        loss.backward()
        optimiser.step()
    assert functional.softmax(model(text)[0, 3], -1)[text[0, 4]] > 0.9


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_loss_over_many_words_is_that_of_their_logits(dtype: torch.dtype) -> None:
    """So many logits that the loss never holds them all."""
    model = model_of(dtype=dtype, vocab_size=30_000)
    tokens, targets = tokens_of(4, 12), torch.randint(0, 30_000, (4, 12), generator=torch.Generator().manual_seed(1))
    targets[0, :5] = -100
    whole = cross_entropy(model(tokens).flatten(0, 1), targets.flatten())
    loss = model(tokens, targets)
    assert loss.item() == pytest.approx(whole.item(), rel=1e-5)
    parameters = list(model.parameters())
    for ours, theirs in zip(torch.autograd.grad(loss, parameters), torch.autograd.grad(whole, parameters), strict=True):
        assert (ours - theirs).norm() <= (2e-2 if dtype == torch.bfloat16 else 2e-5) * theirs.norm()
