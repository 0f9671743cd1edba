"""Every family against transformers: logits, loss and gradients, greedy text, and the way through our folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from stages.generate import Sampling, generate
from stages.models.hf import load_model, save_weights
from stages.models.names import pieces
from tests.stages.models.families import DISTINCT, NAMES, opened, saved, tokens


@pytest.mark.parametrize("name", NAMES)
def test_logits_loss_and_gradients_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    theirs = saved(name, tmp_path)
    ours, batch = load_model(tmp_path), tokens(3, 80)
    assert (ours(batch) - theirs(batch).logits).abs().max() < 1e-4
    inputs, targets = batch[:, :-1], batch[:, 1:]
    loss = ours(inputs, targets)
    expected = functional.cross_entropy(theirs(inputs).logits.flatten(0, 1), targets.flatten())
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    loss.backward()
    expected.backward()
    published = dict(theirs.named_parameters())
    for own_name, parameter in ours.named_parameters():
        for piece in pieces(ours.config, own_name):
            gradient = parameter.grad if piece.stop < 0 else parameter.grad[..., piece.start : piece.stop]
            gradient = gradient.t() if piece.transposed else gradient
            reference = published[piece.name].grad
            error = (gradient - reference).norm() / reference.norm().clamp(min=1e-6)
            assert error < 1e-4, piece.name


@pytest.mark.parametrize("name", DISTINCT)
def test_greedy_text_is_that_of_transformers_alone_and_in_a_batch(name: str, tmp_path: Path) -> None:
    theirs = saved(name, tmp_path)
    ours = load_model(tmp_path)
    prompts = [tokens(1, length, seed=length)[0].tolist() for length in (9, 1, 30)]
    expected = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        text = theirs.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=64)
        expected.append(text[0, len(prompt) :].tolist())
    greedy = Sampling(temperature=0, max_new_tokens=64)
    assert [generate(ours, [prompt], greedy)[0] for prompt in prompts] == expected
    assert generate(ours, prompts, greedy, max_slots=2) == expected


@pytest.mark.parametrize("name", NAMES)
def test_what_we_write_opens_in_transformers_with_equal_logits(name: str, tmp_path: Path) -> None:
    theirs = saved(name, tmp_path / "theirs")
    ours = load_model(tmp_path / "theirs")
    (tmp_path / "ours").mkdir()
    save_weights(ours, tmp_path / "ours", shard_bytes=30_000)
    batch = tokens(2, 70)
    assert (opened(tmp_path / "ours")(batch).logits - theirs(batch).logits).abs().max() < 1e-4
    again = load_model(tmp_path / "ours")
    assert again.config == ours.config
    assert torch.equal(again(batch), ours(batch))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, torch.float32) for name in NAMES), ("smollm", torch.bfloat16), ("qwen2", torch.float16)],
)
def test_the_files_are_those_of_save_pretrained(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    theirs = saved(name, tmp_path / "start").to(dtype)
    theirs.config.dtype = dtype
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_model(tmp_path / "theirs")
    assert {parameter.dtype for parameter in ours.parameters()} == {dtype}
    (tmp_path / "ours").mkdir()
    save_weights(ours, tmp_path / "ours")
    mine, published = (json.loads((tmp_path / which / "config.json").read_text()) for which in ("ours", "theirs"))
    for values in (mine, published):
        values.pop("max_window_layers", None)  # layer_types says it, and transformers keeps any number beside it
    old = {key: mine.pop(key, None) for key in ("rope_theta", "rope_scaling")}
    assert mine == published
    rope = published.get("rope_parameters", {})
    assert old["rope_theta"] == rope.get("rope_theta")
    scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
    assert old["rope_scaling"] == (None if scaling in ({}, {"rope_type": "default"}) else scaling)
    a, b = (load_file(tmp_path / which / "model.safetensors") for which in ("ours", "theirs"))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) and a[key].dtype == b[key].dtype for key in a)
