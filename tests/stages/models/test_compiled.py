"""Compiled code gives the model's logits and the plain path's tokens, and steps aside where it cannot serve."""

from __future__ import annotations

import logging

import pytest
import torch

from kernels import choice
from kernels.native import NotCompiled, library
from stages.generate import Engine, Sampling, generate
from stages.models import compiled, inference
from stages.models.decoder import Decoder, new_decoder
from stages.models.inference import InferenceDecoder
from stages.models.lora import LoraConfig, add_lora
from stages.store.presets import ModelConfig, load_preset
from tests.stages.models.test_inference import DTYPES, LLAMA, SHAPE, logits_by, loud

GPT1 = {"family": "gpt1", "norm": "post"}
ODD = {"heads": 3, "width": 15, "ff_width": 37, "activation": "relu"}
MISTRAL = {**LLAMA, "family": "mistral", "qk_norm": False, "window": 5, "heads": 1, "kv_heads": 1, "width": 64}
WIDE = {"heads": 1, "width": 128, "tied": False}
KINDS = pytest.mark.parametrize("kind", [{}, GPT1, LLAMA, ODD, MISTRAL, WIDE])
GREEDY = Sampling(temperature=0, max_new_tokens=64)


@pytest.fixture(autouse=True)
def _compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(compiled.VARIABLE, raising=False)
    try:
        library(compiled.SOURCE)
    except NotCompiled as why:
        pytest.skip(str(why))


@DTYPES
@KINDS
@pytest.mark.parametrize("rows", [1, 7, 20])
def test_logits_are_the_models(kind: dict, dtype: torch.dtype, tolerance: float, rows: int) -> None:
    model = loud(kind, dtype)
    laid_out = InferenceDecoder(model)
    assert laid_out.compiled and laid_out.new_cache(1, 4).k.dtype == torch.float32
    found, expected = logits_by(laid_out, rows), logits_by(model, rows)
    assert (found - expected).abs().max() < tolerance * expected.abs().max()


@KINDS
def test_greedy_tokens_are_those_of_the_plain_path(kind: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 tokens, alone and in a batch of unequal lengths; and when PyTorch reads the longer prompts."""
    model = loud({**kind, "context": 100}, torch.float32)
    drawn = torch.Generator().manual_seed(2)
    prompts = [torch.randint(61, (n,), generator=drawn).tolist() for n in (1, 30, 4, 17, 2, 23, 9)]
    alone = [generate(model, [prompt], GREEDY)[0] for prompt in prompts]
    together = generate(model, prompts, GREEDY, max_slots=5)
    monkeypatch.setattr(inference, "LONGEST", 10)
    partly = generate(model, prompts, GREEDY, max_slots=5)
    monkeypatch.setenv(compiled.VARIABLE, "plain")
    assert not InferenceDecoder(model).compiled
    assert alone == together == partly == generate(model, prompts, GREEDY, max_slots=5)


def test_what_a_sequence_gets_does_not_depend_on_others_by_a_single_bit() -> None:
    model = loud(LLAMA, torch.float32)
    prompts = [[3, 1, 4], [1, 5], [9, 2, 6, 5, 3, 5], [8], [9, 7, 9]]
    engine = Engine(model, len(prompts))
    slots = [engine.add(prompt, Sampling(seed=1, max_new_tokens=8)) for prompt in prompts]
    together: dict[int, list[float]] = {slot: [] for slot in slots}
    while tokens := engine.step():
        for token in tokens:
            together[token.slot].append(token.logprob)
    for slot, prompt in zip(slots, prompts, strict=True):
        single = Engine(model, 1)
        single.add(prompt, Sampling(seed=1, max_new_tokens=8))
        alone: list[float] = []
        while tokens := single.step():
            alone += [token.logprob for token in tokens]
        assert alone == together[slot]


def test_what_lies_outside_the_cache_or_the_tables_is_refused() -> None:
    decoder = InferenceDecoder(loud({}, torch.float32))
    cache = decoder.new_cache(2, 60)
    for length, tokens in ((60, [1, 1]), (40, [1, 1]), (3, [1, 61]), (3, [1, 1, 1])):
        cache.lengths.fill_(length)
        with pytest.raises(IndexError):
            decoder.decode(torch.tensor(tokens), cache)


def test_adapters_are_merged_and_the_model_stays_as_it_was() -> None:
    model = loud(LLAMA, torch.float32)
    add_lora(model, LoraConfig(rank=2))
    for name, parameter in model.named_parameters():
        if ".b." in name:
            parameter.data.normal_(0, 0.2, generator=torch.Generator().manual_seed(3))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    found = logits_by(InferenceDecoder(model), 3)
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())
    assert (found - logits_by(model, 3)).abs().max() < 1e-4


def test_weights_that_are_no_numbers_come_out_as_none() -> None:
    for name in ("tokens", "blocks.0.attention_in.weight", "blocks.1.mlp_out.weight", "blocks.1.norm_2.weight"):
        model = loud({}, torch.float32)
        model.get_parameter(name).data.fill_(float("nan"))
        assert logits_by(InferenceDecoder(model), 2).isnan().any()


def model_of(**changes: object) -> Decoder:
    return new_decoder(ModelConfig(**{**SHAPE, **changes}), 0)  # type: ignore[arg-type] - of any setting


def test_it_serves_where_it_computes_the_same_and_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compiled.serves(model_of()) and compiled.serves(model_of().bfloat16())
    assert not compiled.serves(model_of(activation="gelu")) and not compiled.serves(model_of().half())
    threads = torch.get_num_threads()
    monkeypatch.setattr(compiled, "SMALL", 1_000)
    try:
        torch.set_num_threads(1)
        assert compiled.serves(model_of()) and not compiled.serves(model_of().bfloat16())
        torch.set_num_threads(2)
        assert not compiled.serves(model_of())
    finally:
        torch.set_num_threads(threads)
    assert load_preset("tiny").activation in compiled.ACTIVATIONS


def test_without_a_compiler_one_line_is_logged_and_the_plain_path_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(source: object) -> None:
        raise NotCompiled("there is no C compiler")

    model = loud({}, torch.float32)
    expected = generate(model, [[3, 4]], Sampling(temperature=0, max_new_tokens=20))
    monkeypatch.setattr(compiled, "library", refuse)
    choice.say_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert generate(model, [[3, 4]], Sampling(temperature=0, max_new_tokens=20)) == expected
    assert [record.message for record in caplog.records] == [
        "Generation on this CPU goes without compiled code, at half the speed for small models: there is no C compiler."
    ]
