"""The layout for generation gives the model's logits, whichever product serves, and leaves the model alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stages.models import inference
from stages.models.decoder import Decoder, new_decoder
from stages.models.inference import InferenceDecoder, lean_norm
from stages.models.lora import LoraConfig, add_lora
from stages.store.presets import ModelConfig

SHAPE = {"layers": 2, "heads": 4, "width": 32, "context": 40, "vocab_size": 61}
LLAMA = {
    "family": "qwen3", "kv_heads": 2, "ff_width": 48, "norm_kind": "rms", "positions": "rotary", "activation": "silu",
    "gated": True, "bias": False, "qk_norm": True,
}  # fmt: skip
KINDS = pytest.mark.parametrize("kind", [{}, {"family": "gpt1", "norm": "post"}, LLAMA])
DTYPES = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 0.06)])


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's operations, not compiled code."""
    monkeypatch.setenv("WORKBENCH_DECODER", "plain")


def loud(kind: dict, dtype: torch.dtype) -> Decoder:
    """A model with weights and biases large enough that a mistake shows."""
    model = new_decoder(ModelConfig(**{**SHAPE, **kind}), 0)
    for number, parameter in enumerate(model.parameters()):
        parameter.data.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)) * 0.1)
    return model.to(dtype).eval()


def logits_by(model: Decoder, rows: int) -> torch.Tensor:
    """After a prompt read at once and two tokens decoded."""
    tokens = torch.randint(61, (rows, 9), generator=torch.Generator().manual_seed(1))
    cache = model.new_cache(rows, 12)
    model.prefill_rows(tokens[:, :7], torch.full((rows,), 7), cache, torch.arange(rows))
    with torch.inference_mode():
        model.decode(tokens[:, 7], cache)
        return model.decode(tokens[:, 8], cache).float()


@DTYPES
@KINDS
@pytest.mark.parametrize("rows", [1, 20])
@pytest.mark.parametrize("large", [0, 1 << 20])
def test_logits_are_the_models(
    kind: dict, dtype: torch.dtype, tolerance: float, rows: int, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "HIDDEN_BYTES", large)
    monkeypatch.setattr(inference, "MANY_ROWS", 16)
    model = loud(kind, dtype)
    found, expected = logits_by(InferenceDecoder(model), rows), logits_by(model, rows)
    assert (found - expected).abs().max() < tolerance * expected.abs().max()


def test_adapters_count_and_the_model_stays_as_it_was() -> None:
    model = loud({}, torch.float32)
    plain = logits_by(model, 3)
    add_lora(model, LoraConfig(rank=2))
    for name, parameter in model.named_parameters():
        if ".b." in name:
            parameter.data.normal_(0, 0.2, generator=torch.Generator().manual_seed(3))
    model.train()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    found = logits_by(InferenceDecoder(model), 3)
    assert model.training and all(torch.equal(before[name], p) for name, p in model.named_parameters())
    assert (found - logits_by(model.eval(), 3)).abs().max() < 1e-4
    assert (found - plain).abs().max() > 0.01


def test_a_model_too_large_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    model = loud({}, torch.bfloat16)
    monkeypatch.setattr(inference, "MOST_COPIED", 1_000)
    assert not inference.copies(model)
    laid_out = InferenceDecoder(model)
    assert laid_out.blocks[0].mlp_in.packed is None
    assert laid_out.new_cache(1, 4).k.dtype == torch.bfloat16
    assert torch.equal(logits_by(laid_out, 2), logits_by(model, 2))


@pytest.mark.parametrize("lengths", [[7, 7], [3, 9]])
def test_a_cache_of_pages_not_yet_touched_grows_and_keeps_what_it_holds(lengths: list[int]) -> None:
    """Masked places are read, and must hold numbers: zeros."""
    decoder = InferenceDecoder(loud({}, torch.bfloat16))
    cache = decoder.new_cache(2, 9)
    assert cache.k.dtype == cache.v.dtype and not cache.k.any() and cache.k.data_ptr() % 64 == 0
    prompts = torch.randint(61, (2, 9), generator=torch.Generator().manual_seed(4))
    decoder.prefill_rows(prompts, torch.tensor(lengths), cache, torch.arange(2))
    kept = cache.k.clone()
    cache.grow(20)
    assert torch.equal(cache.k[..., :9, :], kept) and not cache.k[..., 9:, :].any()
    assert cache.lengths.tolist() == lengths and decoder.decode(prompts[:, 0], cache).isfinite().all()


@pytest.mark.parametrize("shape", [(5, 24), (2, 3, 4, 24)])
@DTYPES
def test_norms_are_those_of_torch(shape: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    x = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3).to(dtype)
    x[0] = 0
    for norm in (nn.RMSNorm(24, 1e-5), nn.LayerNorm(24, 1e-5), nn.LayerNorm(24, 1e-5, bias=False)):
        norm = norm.to(dtype)
        with torch.no_grad():
            norm.weight.normal_(1, 0.3)
            assert (lean_norm(norm)(x).float() - norm(x).float()).abs().max() < tolerance
