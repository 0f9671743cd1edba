"""Model folders, both ways, against transformers itself."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    OpenAIGPTConfig,
    OpenAIGPTLMHeadModel,
    PreTrainedModel,
)

from stages.models.decoder import Decoder, new_decoder
from stages.models.hf import load_model, read_config, save_weights
from stages.store.errors import UserError
from stages.store.presets import ModelConfig


def random_config(seed: int) -> ModelConfig:
    draw = random.Random(seed)
    heads = draw.choice([1, 2, 3, 4])
    gpt1 = seed % 3 == 2
    return ModelConfig(
        family="gpt1" if gpt1 else "gpt2",
        norm="post" if gpt1 else "pre",
        layers=draw.randint(1, 3),
        heads=heads,
        width=heads * draw.choice([4, 6, 8]),
        ff_width=None if gpt1 else draw.choice([None, 20, 33]),
        context=draw.randint(6, 20),
        vocab_size=draw.choice([11, 97, 128, 257]),
        norm_eps=draw.choice([1e-5, 1e-6]),
        tied=draw.random() < 0.7,
        activation=draw.choice(["gelu_tanh", "relu"]),
    )


def random_model(config: ModelConfig) -> Decoder:
    """Weights large enough that a mistake anywhere shows in the logits; biases and norms random too."""
    model = new_decoder(config, 0)
    for number, parameter in enumerate(model.parameters()):
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
        parameter.data.add_(noise * 0.2)
    return model.eval()


def tokens_for(config: ModelConfig) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, config.vocab_size, (3, config.context), generator=generator)


def theirs_from(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.parametrize("seed", range(9))
def test_transformers_opens_ours_with_equal_logits_and_gradients(seed: int, tmp_path: Path) -> None:
    config = random_config(seed)
    ours = random_model(config)
    save_weights(ours, tmp_path)
    theirs, tokens = theirs_from(tmp_path), tokens_for(config)
    assert (ours(tokens) - theirs(tokens).logits).abs().max() < 1e-4
    ours(tokens[:, :-1], tokens[:, 1:]).backward()
    logits = theirs(tokens[:, :-1]).logits
    functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
    block, layer = ours.blocks[0], theirs.transformer.h[0]
    pairs = [
        (ours.tokens, theirs.get_input_embeddings().weight),
        (block.attention_in.weight, layer.attn.c_attn.weight),
        (block.mlp_out.bias, layer.mlp.c_proj.bias),
        (block.norm_1.weight, layer.ln_1.weight),
    ]
    for a, b in pairs:
        assert a.grad is not None and b.grad.abs().max() > 1e-6
        assert torch.allclose(a.grad, b.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("gpt1", [False, True])
def test_we_open_theirs_with_equal_logits(gpt1: bool, tied: bool, tmp_path: Path) -> None:
    shape = {"n_layer": 2, "n_head": 2, "n_embd": 12, "n_positions": 9, "vocab_size": 37, "tie_word_embeddings": tied}
    torch.manual_seed(0)
    theirs = (OpenAIGPTLMHeadModel(OpenAIGPTConfig(**shape)) if gpt1 else GPT2LMHeadModel(GPT2Config(**shape))).eval()
    for parameter in theirs.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.2)
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    tokens = tokens_for(ours.config)
    assert not ours.training
    assert (ours(tokens) - theirs(tokens).logits).abs().max() < 1e-4
    assert torch.equal(load_model(tmp_path, dtype=torch.bfloat16).tokens, ours.tokens.bfloat16())


@pytest.mark.parametrize("gpt1", [False, True])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_files_are_those_of_save_pretrained(gpt1: bool, tied: bool, dtype: torch.dtype, tmp_path: Path) -> None:
    config = ModelConfig(
        family="gpt1" if gpt1 else "gpt2",
        norm="post" if gpt1 else "pre",
        layers=2,
        heads=2,
        width=8,
        context=6,
        vocab_size=11,
        dropout=0.1,
        tied=tied,
    )
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    save_weights(new_decoder(config, 0, dtype), ours, bos_id=0, eos_id=0)
    AutoModelForCausalLM.from_pretrained(ours).save_pretrained(theirs)
    assert sorted(os.listdir(ours)) == sorted(os.listdir(theirs))
    for name in ("config.json", "generation_config.json"):
        mine, published = (json.loads((folder / name).read_text()) for folder in (ours, theirs))
        for values in (mine, published):
            values.pop("transformers_version")
        assert mine == published
    a, b = load_file(ours / "model.safetensors"), load_file(theirs / "model.safetensors")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) and a[name].dtype == dtype for name in a)
    with safe_open(ours / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_a_model_without_biases_comes_back_as_one_and_opens_in_transformers(tmp_path: Path) -> None:
    config = ModelConfig(layers=1, heads=2, width=8, context=6, vocab_size=11, bias=False)
    ours = random_model(config)
    save_weights(ours, tmp_path)
    tokens = tokens_for(config)
    assert (ours(tokens) - theirs_from(tmp_path)(tokens).logits).abs().max() < 1e-4
    assert load_model(tmp_path).config == config
    assert torch.equal(load_model(tmp_path)(tokens), ours(tokens))


def test_large_weights_are_sharded_with_an_index(tmp_path: Path) -> None:
    ours = random_model(random_config(0))
    save_weights(ours, tmp_path, shard_bytes=4_000)
    names = [path.name for path in tmp_path.glob("*.safetensors")]
    assert len(names) > 1 and "model.safetensors" not in names
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(names)
    assert index["metadata"]["total_parameters"] == sum(p.numel() for p in ours.parameters())
    tokens = tokens_for(ours.config)
    assert torch.equal(load_model(tmp_path)(tokens), ours(tokens))
    assert (theirs_from(tmp_path)(tokens).logits - ours(tokens)).abs().max() < 1e-4


def test_files_honour_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        save_weights(random_model(random_config(0)), tmp_path)
    finally:
        os.umask(old)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}


def test_old_files_without_the_prefix_and_with_mask_buffers_open(tmp_path: Path) -> None:
    ours = random_model(random_config(0))
    save_weights(ours, tmp_path)
    tensors = {k.removeprefix("transformer."): v for k, v in load_file(tmp_path / "model.safetensors").items()}
    save_file(tensors | {"h.0.attn.bias": torch.ones(1, 1, 4, 4)}, tmp_path / "model.safetensors")
    tokens = tokens_for(ours.config)
    assert torch.equal(load_model(tmp_path)(tokens), ours(tokens))


def edit(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def without(folder: Path, name: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors[name]
    save_file(tensors, folder / "model.safetensors")


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def pickle_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def index_outside(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"transformer.wte.weight": "../elsewhere.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def integers(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({k: v.to(torch.int32) for k, v in tensors.items()}, folder / "model.safetensors")


HOSTILE = {
    "llama9": lambda f: edit(f, model_type="llama9"),
    "config.json": lambda f: (f / "config.json").unlink(),
    "not valid JSON": lambda f: (f / "config.json").write_text("{" * 100_000),
    "JSON object": lambda f: (f / "config.json").write_text("[]"),
    "n_layer": lambda f: (f / "config.json").write_text('{"model_type": "gpt2"}'),
    "layers": lambda f: edit(f, n_layer=10**9),
    "`heads` must divide": lambda f: edit(f, n_head=3),
    "scale_attn_by_inverse_layer_idx": lambda f: edit(f, scale_attn_by_inverse_layer_idx=True),
    "activation": lambda f: edit(f, activation_function="__import__('os')"),
    "shape": lambda f: edit(f, vocab_size=12),
    "transformer.ln_f.bias": lambda f: without(f, "transformer.ln_f.bias"),
    "cut short": truncate,
    "pickle": pickle_only,
    "no model.safetensors": lambda f: (f / "model.safetensors").unlink(),
    "elsewhere": index_outside,
    "float type": integers,
}


@pytest.mark.parametrize("says", HOSTILE)
def test_a_bad_folder_gets_one_clear_sentence(says: str, tmp_path: Path) -> None:
    config = ModelConfig(layers=1, heads=2, width=8, context=6, vocab_size=11)
    save_weights(new_decoder(config, 0), tmp_path)
    assert load_model(tmp_path).config == config
    HOSTILE[says](tmp_path)
    with pytest.raises(UserError) as caught:
        load_model(tmp_path)
    assert says in str(caught.value)
    assert "\n" not in caught.value.title


def test_every_mutation_of_a_folder_loads_or_is_refused(tmp_path: Path) -> None:
    save_weights(new_decoder(ModelConfig(layers=1, heads=1, width=4, context=3, vocab_size=5), 0), tmp_path)
    originals = {name: (tmp_path / name).read_bytes() for name in ("config.json", "model.safetensors")}
    draw = random.Random(0)
    for _ in range(200):
        name = draw.choice(sorted(originals))
        data = bytearray(originals[name])
        end = len(data) if name == "config.json" else 900  # the header, and a little beyond
        for _ in range(draw.randint(1, 4)):
            data[draw.randrange(min(end, len(data)))] = draw.randrange(256)
        (tmp_path / name).write_bytes(data[: draw.randint(1, len(data))] if draw.random() < 0.2 else data)
        try:
            load_model(tmp_path)
        except UserError as error:
            assert error.title
        (tmp_path / name).write_bytes(originals[name])


def test_reading_the_configuration_alone_needs_no_weights(tmp_path: Path) -> None:
    config = random_config(4)
    save_weights(new_decoder(config, 0), tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert read_config(tmp_path) == config
