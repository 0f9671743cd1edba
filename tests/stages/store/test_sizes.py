"""Counts against published figures, against real modules, and against what a training step holds."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from stages.models.decoder import Decoder, new_decoder
from stages.models.encoder import Encoder
from stages.models.hf_config import config_json
from stages.models.t5 import T5
from stages.models.transformer_xl import TransformerXL
from stages.optim import AdamW
from stages.store.presets import ModelConfig, list_presets, load_preset
from stages.store.sizes import (
    flops_per_token,
    inference_memory,
    parameter_count,
    peak_flops,
    training_memory,
)

PUBLISHED = {
    "gpt1": 116_534_784,
    "gpt2-small": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "smollm2-135m": 134_515_008,
    "qwen3-0.6b": 596_049_920,
    "llama-3.2-1b": 1_235_814_400,
    "bert-base": 109_514_298,
    "bert-large": 335_174_458,
    "t5-small": 60_506_624,
    "t5-base": 222_903_552,
    "transformer-xl": 151_107_538 - (267_735 + 3 * 411),  # of the published count: the adaptive softmax's own
}
PINNED = PUBLISHED | {
    "tiny": 891_648,
    "small": 10_942_464,
    "tiny-llama": 951_424,
    "small-llama": 11_850_624,
    "tiny-bert": 1_355_136,
    "tiny-t5": 2_362_368,
    "tiny-transformer-xl": 922_368,
}
MODULES = {
    "decoder": (Decoder, AutoModelForCausalLM),
    "encoder": (Encoder, AutoModelForMaskedLM),
    "encoder-decoder": (T5, AutoModelForSeq2SeqLM),
    "recurrent decoder": (TransformerXL, None),  # transformers has none
}


@pytest.mark.parametrize("name", list_presets())
def test_counts_equal_the_pinned_ones_and_the_real_modules(name: str) -> None:
    config = load_preset(name)
    published = config_json(config, "float32", {})
    our_module, their_module = MODULES[config.kind]
    count = parameter_count(config).total
    assert count == PINNED[name]
    with torch.device("meta"):
        ours = our_module(config)
        assert count == sum(p.numel() for p in ours.parameters())
        if their_module is not None:
            theirs = their_module.from_config(AutoConfig.for_model(**published))
            theirs.tie_weights()
            assert count == sum(p.numel() for p in theirs.parameters())


MODERN = {"norm_kind": "rms", "positions": "rotary", "gated": True, "bias": False, "activation": "silu"}
QWEN3 = MODERN | {"family": "qwen3", "qk_norm": True, "kv_heads": 1, "head_dim": 6}


@pytest.mark.parametrize(
    "changes",
    [
        {"tied": False},
        {"bias": False},
        {"ff_width": 7},
        {"layers": 3, "vocab_size": 1},
        MODERN | {"family": "llama", "qkv_bias": True, "out_bias": True, "mlp_bias": True, "tied": False},
        MODERN | {"family": "qwen2", "qkv_bias": True, "kv_heads": 1},
        QWEN3,
        QWEN3 | {"qkv_bias": True, "out_bias": True, "ff_width": 9},
    ],
)
def test_every_choice_is_counted(changes: dict[str, object]) -> None:
    config = ModelConfig(**({"layers": 2, "heads": 2, "width": 8, "context": 5, "vocab_size": 11} | changes))
    with torch.device("meta"):
        assert parameter_count(config).total == sum(p.numel() for p in Decoder(config).parameters())


def test_flops_follow_the_stated_formula() -> None:
    config = load_preset("gpt2-small")
    weights = 12 * 12 * 768**2 + 50257 * 768
    biases = 12 * (4 + 5) * 768
    assert flops_per_token(config) == 6 * (weights + biases) + 12 * 12 * 768 * 1024
    assert flops_per_token(config, context=128) == 6 * (weights + biases) + 12 * 12 * 768 * 128
    wide = load_preset("qwen3-0.6b")  # heads of 128 side by side are twice as wide as the model
    weights = 28 * (1024 * (2048 + 2 * 1024) + 2048 * 1024 + 3 * 1024 * 3072) + 151_936 * 1024
    assert flops_per_token(wide, context=100) == 6 * weights + 12 * 28 * 2048 * 100


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("changes", [{}, QWEN3 | {"kv_heads": 2, "head_dim": 24}, MODERN | {"family": "llama"}])
def test_the_activation_estimate_is_near_what_autograd_keeps(changes: dict, dtype: str) -> None:
    config = ModelConfig(**({"layers": 4, "heads": 4, "width": 64, "context": 64, "vocab_size": 128} | changes))
    model = new_decoder(config, 0, torch.float32 if dtype == "fp32" else torch.bfloat16)
    kept: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    tokens = torch.zeros(8, 64, dtype=torch.int64)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(tokens, tokens)
    estimate = training_memory(config, 8, dtype=dtype).activations
    assert loss.requires_grad
    assert 0.7 < estimate / sum(kept.values()) < 1.4


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_the_estimate_counts_what_training_holds_for_each_parameter(dtype: str) -> None:
    config = load_preset("tiny")
    model = new_decoder(config, 0)
    compute = torch.bfloat16 if dtype == "bf16" else torch.float32
    optimizer = AdamW(model, betas=(0.9, 0.99), weight_decay=0.1, compute_dtype=compute)
    tokens = torch.zeros(1, 8, dtype=torch.int64)
    model(tokens, tokens).backward()
    gradients = sum(parameter.grad.nbytes for parameter in model.parameters() if parameter.grad is not None)
    optimizer.gather(first=True)
    optimizer.step(1e-3)
    tensors = (optimizer.master, optimizer.gradient, optimizer.compute, *optimizer.state().values())
    held = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    estimate = training_memory(config, 1, dtype=dtype)
    counted = estimate.weights + estimate.gradients + estimate.optimiser
    assert counted == pytest.approx(gradients + sum(held.values()), rel=0.001)


def test_memory_of_weights_optimiser_and_cache() -> None:
    config = load_preset("gpt2-small")
    bf16, fp32 = training_memory(config, 1), training_memory(config, 1, dtype="fp32")
    assert (bf16.weights, bf16.gradients, bf16.optimiser) == tuple(124_439_808 * n for n in (2, 6, 12))
    assert (fp32.weights, fp32.gradients, fp32.optimiser) == tuple(124_439_808 * n for n in (4, 8, 8))
    assert bf16.total == sum(bf16)
    logits = 2**24 * (2 + 2 * 4)  # whatever the batch
    assert training_memory(config, 8).activations - logits == 8 * (bf16.activations - logits)
    for name in ("tiny", "tiny-llama"):
        cache = new_decoder(load_preset(name), 0, torch.bfloat16).new_cache(3, 100)
        assert inference_memory(load_preset(name), 3, context=100).cache == cache.k.nbytes + cache.v.nbytes


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989.4),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362.05),
        ("NVIDIA GeForce RTX 3090", 71.2),
        ("NVIDIA GeForce RTX 4090", 165.2),
    ],
)
def test_known_gpus_have_their_dense_peak(name: str, teraflops: float) -> None:
    assert peak_flops(name) == pytest.approx(teraflops * 1e12)


@pytest.mark.parametrize(
    "name",
    [
        "AMD EPYC",
        "",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 3090 Ti",
        "NVIDIA A100 MIG 3g.40gb",
        "T4",
    ],
)
def test_an_unknown_device_has_no_peak(name: str) -> None:
    assert peak_flops(name) is None
