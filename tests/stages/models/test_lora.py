"""Adapters: what they change, what trains, merging, and PEFT's folders both ways."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig as PeftConfig
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from stages.models.decoder import Decoder
from stages.models.hf import load_model, save_weights
from stages.models.lora import (
    LoraConfig,
    add_lora,
    has_lora,
    load_adapter,
    lora_parameters,
    merge_lora,
    merged,
    save_adapter,
    target_names,
)
from stages.store.errors import UserError
from tests.stages.models.families import opened, saved, tokens

FAMILIES = ["gpt2", "llama", "mistral", "qwen2", "qwen3"]
TARGETS = {"gpt2": ("c_attn", "c_proj"), "qwen3": ("q_proj", "v_proj", "down_proj")}


def adapted(folder: Path, name: str, **changes: object) -> Decoder:
    """A model with adapters that change it."""
    saved(name, folder)
    model = load_model(folder)
    config = LoraConfig(rank=3, alpha=6.0, targets=TARGETS.get(name, LoraConfig().targets))._replace(**changes)
    add_lora(model, config)
    for number, parameter in enumerate(lora_parameters(model)):
        parameter.data.normal_(0, 0.2, generator=torch.Generator().manual_seed(number))
    return model


@pytest.mark.parametrize("name", FAMILIES)
def test_peft_opens_ours_with_equal_logits(name: str, tmp_path: Path) -> None:
    base, folder = tmp_path / "base", tmp_path / "adapter"
    folder.mkdir()
    ours = adapted(base, name)
    save_adapter(ours, folder, base)
    batch = tokens(2, 20)
    theirs = PeftModel.from_pretrained(opened(base), folder).eval()
    plain = load_model(base)
    assert (ours(batch) - plain(batch)).abs().max() > 0.01
    assert (ours(batch) - theirs(batch).logits).abs().max() < 1e-4
    load_adapter(plain, folder)
    assert torch.equal(plain(batch), ours(batch))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("by_root", [False, True])
def test_we_open_theirs_with_equal_logits(name: str, by_root: bool, tmp_path: Path) -> None:
    model = saved(name, tmp_path / "base")
    targets = ["c_attn", "mlp.c_proj"] if name == "gpt2" else ["q_proj", "o_proj", "up_proj"]
    config = PeftConfig(
        r=2, lora_alpha=5, target_modules=targets, use_rslora=by_root, init_lora_weights=False, task_type="CAUSAL_LM"
    )
    theirs = get_peft_model(model, config).eval()
    theirs.save_pretrained(tmp_path / "adapter")
    ours = load_model(tmp_path / "base")
    batch = tokens(2, 20)
    before = ours(batch)
    load_adapter(ours, tmp_path / "adapter")
    assert (ours(batch) - before).abs().max() > 0.01
    assert (ours(batch) - theirs(batch).logits).abs().max() < 1e-4


def test_only_the_adapters_train_and_they_begin_as_no_change(tmp_path: Path) -> None:
    saved("llama", tmp_path)
    model, batch = load_model(tmp_path), tokens(2, 12)
    before = model(batch)
    add_lora(model, LoraConfig(rank=4))
    assert torch.equal(model(batch), before)
    model.train()
    model(batch, batch).backward()
    own = {id(parameter) for parameter in lora_parameters(model)}
    assert len(own) == 3 * 2 * 7
    for parameter in model.parameters():
        assert (parameter.grad is not None) == parameter.requires_grad == (id(parameter) in own)


def test_one_seed_gives_the_same_adapters(tmp_path: Path) -> None:
    saved("qwen2", tmp_path)
    models = [load_model(tmp_path) for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        add_lora(model, LoraConfig(), seed=seed)
    one, same, other = (lora_parameters(model) for model in models)
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one[0], other[0])


def test_dropout_acts_on_the_adapters_in_training_only(tmp_path: Path) -> None:
    model, batch = adapted(tmp_path, "llama", dropout=0.5), tokens(1, 12)
    assert torch.equal(model(batch), model(batch))
    model.train()
    assert not torch.equal(model(batch), model(batch))


@pytest.mark.parametrize("name", ["gpt2", "qwen3"])
def test_merging_keeps_what_the_model_says(name: str, tmp_path: Path) -> None:
    model, batch = adapted(tmp_path / "base", name), tokens(2, 20)
    before = model(batch)
    weights = [parameter.clone() for parameter in model.parameters()]
    (tmp_path / "merged").mkdir()
    with merged(model):
        assert not has_lora(model)
        assert torch.allclose(model(batch), before, atol=1e-4)
        save_weights(model, tmp_path / "merged")
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
    assert torch.equal(model(batch), before)
    assert (opened(tmp_path / "merged")(batch).logits - before).abs().max() < 1e-4
    merge_lora(model)
    assert torch.allclose(model(batch), before, atol=1e-4)
    assert not lora_parameters(model) and all(parameter.requires_grad for parameter in model.parameters())


def test_targets_are_named_in_our_words_or_the_familys(tmp_path: Path) -> None:
    saved("llama", tmp_path)
    model = load_model(tmp_path)
    assert target_names(model.config)[4:] == [f"{kind}_proj" for kind in ("q", "k", "v", "o", "gate", "up", "down")]
    with pytest.raises(UserError, match="c_attn"):
        add_lora(model, LoraConfig(targets=("c_attn",)))
    add_lora(model, LoraConfig(rank=2, targets=("v_proj",)))
    assert [tuple(p.shape) for p in lora_parameters(model)[:2]] == [(32, 2), (2, 16)]


def edit(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite(folder: Path, change: str) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    name = next(iter(tensors))
    tensor = tensors.pop(name)
    if change == "add":
        tensors |= {name: tensor, "base_model.model.model.embed_tokens.lora_embedding_A": tensor.clone()}
    elif change == "shape":
        tensors[name] = torch.zeros(3, 5)
    save_file(tensors, path)


WRONG = {
    "only LORA": lambda f: edit(f, peft_type="IA3"),
    "use_dora": lambda f: edit(f, use_dora=True),
    "modules_to_save": lambda f: edit(f, modules_to_save=["lm_head"]),
    "pissa": lambda f: edit(f, init_lora_weights="pissa"),
    "does not describe": lambda f: edit(f, r="many"),
    "rank 0": lambda f: edit(f, r=0),
    "asks for floats": lambda f: rewrite(f, "shape"),
    "lacks": lambda f: rewrite(f, "drop"),
    "no place": lambda f: rewrite(f, "add"),
    "pickle": lambda f: (f / "adapter_model.safetensors").rename(f / "adapter_model.bin"),
    "cannot be read": lambda f: (f / "adapter_model.safetensors").write_bytes(b"\x00" * 40),
}


@pytest.mark.parametrize("says", WRONG)
def test_a_bad_adapter_gets_one_clear_sentence(says: str, tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    save_adapter(adapted(tmp_path / "base", "llama"), tmp_path / "adapter", tmp_path / "base")
    WRONG[says](tmp_path / "adapter")
    with pytest.raises(UserError) as caught:
        load_adapter(load_model(tmp_path / "base"), tmp_path / "adapter")
    assert says in caught.value.title and "\n" not in str(caught.value)
