"""Scalar heads: what transformers makes of ours, what we make of theirs, and which token a score is read at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from stages.models.decoder import new_decoder
from stages.models.hf import load_model, save_weights
from stages.models.value import ValueModel, load_value_model, new_value_model, save_value_model
from stages.store.architecture import ModelConfig
from stages.store.errors import UserError

PAD = 1
ROTARY = {"norm_kind": "rms", "positions": "rotary", "bias": False, "activation": "silu", "gated": True}
FAMILIES = {
    "gpt2": {},
    "gpt2 without biases": {"bias": False},
    "gpt1": {"norm": "post"},
    "llama": ROTARY | {"kv_heads": 1},
    "mistral": ROTARY | {"kv_heads": 1, "window": 5},
    "qwen2": ROTARY | {"kv_heads": 1, "qkv_bias": True, "out_bias": False, "tied": True},
    "qwen3": ROTARY | {"kv_heads": 1, "head_dim": 8, "qk_norm": True},
}


def value_model(name: str, seed: int = 0) -> ValueModel:
    """A small model whose weights are large enough that a mistake shows in its scores."""
    shape = {"tied": not FAMILIES[name].get("positions")} | FAMILIES[name]
    config = ModelConfig(
        family=name.split()[0], layers=2, heads=2, width=16, ff_width=64, context=24, vocab_size=50, **shape
    )
    model = new_value_model(new_decoder(config, seed), seed)
    for number, parameter in enumerate(model.parameters()):
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
        parameter.data.add_(noise * 0.2)
    return model.eval()


def padded(side: str) -> tuple[Tensor, Tensor]:
    """Rows of 9, 4 and 1 tokens, none of them the pad token, and which tokens are real."""
    tokens = torch.full((3, 9), PAD)
    for row, length in enumerate((9, 4, 1)):
        place = slice(0, length) if side == "right" else slice(9 - length, 9)
        tokens[row, place] = torch.arange(length) * 7 % 43 + 2 + row
    return tokens, tokens != PAD


def their_scores(folder: Path, tokens: Tensor, real: Tensor) -> Tensor:
    theirs = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    positions = (real.long().cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        return theirs(tokens, attention_mask=real.long(), position_ids=positions).logits[:, 0]


@pytest.mark.parametrize("name", FAMILIES)
def test_transformers_reads_equal_scores_with_padding_on_either_side(name: str, tmp_path: Path) -> None:
    ours = value_model(name)
    save_value_model(ours, tmp_path, pad_id=PAD)
    found = []
    for side in ("left", "right"):
        tokens, real = padded(side)
        with torch.no_grad():
            found.append(ours.scores(tokens, real))
        torch.testing.assert_close(found[-1], their_scores(tmp_path, tokens, real), rtol=0, atol=1e-5)
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-5)
    assert found[0].std() > 0.1


@pytest.mark.parametrize("name", FAMILIES)
def test_what_transformers_saves_opens_with_equal_scores(name: str, tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    save_value_model(value_model(name, seed=3), tmp_path / "ours", pad_id=PAD)
    AutoModelForSequenceClassification.from_pretrained(tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    written = json.loads((tmp_path / "ours" / "config.json").read_text())
    theirs = json.loads((tmp_path / "theirs" / "config.json").read_text())
    for key in ("architectures", "id2label", "label2id", "pad_token_id", "model_type", "dtype"):
        assert written[key] == theirs[key], key
    tokens, real = padded("right")
    with torch.no_grad():
        opened = load_value_model(tmp_path / "theirs").scores(tokens, real)
    torch.testing.assert_close(opened, their_scores(tmp_path / "theirs", tokens, real), rtol=0, atol=1e-5)


def test_a_packed_row_has_the_scores_of_its_documents() -> None:
    model = value_model("llama")
    tokens, real = padded("right")
    ends = real.sum(1).cumsum(0)
    documents = torch.cat((torch.zeros(1, dtype=torch.long), ends))
    with torch.no_grad():
        packed = model.packed_scores(tokens[real][None], documents)
        torch.testing.assert_close(packed, model.scores(tokens, real), rtol=0, atol=1e-5)


def test_a_row_of_padding_has_no_score() -> None:
    with pytest.raises(ValueError, match="no token"):
        value_model("gpt2").scores(torch.full((2, 3), PAD), torch.tensor([[True] * 3, [False] * 3]))


def test_the_head_starts_small_and_from_its_seed_alone() -> None:
    config = ModelConfig(layers=1, heads=2, width=1024, context=8, vocab_size=11, tied=False)
    first, again = (new_value_model(new_decoder(config, seed), 5) for seed in (0, 1))
    assert torch.equal(first.score, again.score)
    assert first.score.std().item() == pytest.approx(1 / 1025**0.5, rel=0.1)
    assert first.decoder.head is None and not any("head" in name for name, _ in first.named_parameters())


def test_a_model_of_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    save_value_model(value_model("gpt2"), tmp_path, pad_id=PAD)
    with pytest.raises(UserError, match="reward model, which scores texts"):
        load_model(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"id2label": {"0": "no", "1": "yes"}}))
    with pytest.raises(UserError, match="several labels"):
        load_value_model(tmp_path)
    (tmp_path / "writer").mkdir()
    save_weights(value_model("gpt2").decoder, tmp_path / "writer")
    with pytest.raises(UserError, match="no reward model"):
        load_value_model(tmp_path / "writer")
