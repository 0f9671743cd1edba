"""Models that are only planned with: counts against what was published and against transformers' own modules."""

from __future__ import annotations

import msgspec
import pytest
import torch
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

from stages.store.errors import UserError
from stages.store.planned import (
    Mixture,
    list_planned,
    mixture_count,
    mixture_flops_per_token,
    mixture_inference_memory,
    mixture_training_memory,
    read_planned,
)
from stages.store.presets import load_preset
from stages.store.sizes import flops_per_token, parameter_count


def test_gpt3_has_the_published_parameters_and_compute() -> None:
    gpt3 = read_planned("gpt3")
    assert gpt3.model is not None
    count = parameter_count(gpt3.model)
    assert round(count.total, -8) == 174_600_000_000  # table D.1: 174,600 million
    by_table = 3.14e23  # the same table: 6 N times 300 billion tokens, attention left out
    assert 6 * count.total * gpt3.tokens == pytest.approx(by_table, rel=0.002)
    assert flops_per_token(gpt3.model) * gpt3.tokens == pytest.approx(by_table, rel=0.04)


def test_deepseek_has_the_published_parameters_in_all_and_for_each_token() -> None:
    shape = deepseek()
    count = mixture_count(shape)
    assert count.total == 671_026_419_200
    assert int(count.active / 1e9) == 37  # 37 billion activated: section 1
    with torch.device("meta"):
        theirs = DeepseekV3ForCausalLM(DeepseekV3Config())
    biases = sum(b.numel() for name, b in theirs.named_buffers() if name.endswith("correction_bias"))
    assert count.total == sum(p.numel() for p in theirs.parameters()) + biases


def deepseek() -> Mixture:
    shape = read_planned("deepseek-r1").mixture
    assert shape is not None
    return shape


def test_every_part_of_a_mixture_is_counted() -> None:
    small = msgspec.structs.replace(deepseek(), layers=3, dense_layers=1, width=32, heads=4, query_rank=12, experts=6)
    small = msgspec.structs.replace(
        small, key_value_rank=8, plain_width=6, rotary_width=4, value_width=5, vocab_size=11
    )
    small = msgspec.structs.replace(small, dense_width=40, expert_width=16, shared_experts=2, experts_per_token=2)
    config = DeepseekV3Config(
        vocab_size=11,
        hidden_size=32,
        intermediate_size=40,
        moe_intermediate_size=16,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        n_shared_experts=2,
        n_routed_experts=6,
        kv_lora_rank=8,
        q_lora_rank=12,
        qk_rope_head_dim=4,
        qk_nope_head_dim=6,
        v_head_dim=5,
        n_group=1,
        topk_group=1,
        num_experts_per_tok=2,
        first_k_dense_replace=1,
    )
    with torch.device("meta"):
        theirs = DeepseekV3ForCausalLM(config)
    sparse, experts = 2, 6
    assert mixture_count(small).total == sum(p.numel() for p in theirs.parameters()) + sparse * experts
    dense = msgspec.structs.replace(small, experts_per_token=experts)
    assert mixture_count(dense).active == mixture_count(dense).total
    assert mixture_count(small).idle == sparse * 4 * 3 * 32 * 16


def test_the_cache_of_latent_attention_is_a_small_part_of_a_plain_one() -> None:
    shape = deepseek()
    cache = mixture_inference_memory(shape, context=1_000).cache
    assert cache == 61 * 576 * 1_000 * 2  # 576 numbers a token and layer: section 2.1.1
    assert mixture_inference_memory(shape).weights == 2 * mixture_count(shape).total
    assert mixture_training_memory(shape, 1, context=4_096).total > 16 * mixture_count(shape).total
    assert mixture_training_memory(shape, 2, context=4_096).activations == 2 * (
        mixture_training_memory(shape, 1, context=4_096).activations
    )
    assert mixture_flops_per_token(shape, 4_096) == pytest.approx(6 * 37e9, rel=0.3)


def test_planned_models_say_what_they_are_and_are_no_presets() -> None:
    assert list_planned() == ["deepseek-r1", "gpt3"]
    for name in list_planned():
        planned = read_planned(name)
        assert planned.title and planned.about.endswith(".") and planned.source and planned.tokens > 1e11
        with pytest.raises(UserError, match="for planning only"):
            load_preset(name)
    with pytest.raises(UserError, match="no planned model 'gpt4'"):
        read_planned("gpt4")
