"""BERT's encoder against transformers: logits, loss, gradients, and model folders both ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForMaskedLM, BertConfig, BertForMaskedLM

from stages.models.encoder import Encoder, load_encoder, new_encoder, save_encoder
from stages.models.hf import load_model
from stages.models.loss import IGNORED
from stages.store.architecture import ModelConfig
from stages.store.errors import UserError
from stages.store.sizes import parameter_count

CONFIG = ModelConfig(
    family="bert",
    layers=2,
    heads=2,
    width=16,
    ff_width=40,
    context=20,
    vocab_size=53,
    types=2,
    norm="post",
    norm_eps=1e-12,
    activation="gelu",
)


def random_encoder() -> Encoder:
    """Weights large enough that a mistake anywhere shows."""
    model = new_encoder(CONFIG, 0)
    for number, parameter in enumerate(model.parameters()):
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
        parameter.data.add_(noise * 0.2)
    return model.eval()


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    dice = torch.Generator().manual_seed(1)
    tokens_BT = torch.randint(1, CONFIG.vocab_size, (3, 12), generator=dice)  # padding learns nothing there
    targets_BT = torch.randint(0, CONFIG.vocab_size, (3, 12), generator=dice)
    targets_BT[torch.rand(3, 12, generator=dice) < 0.6] = IGNORED
    lengths_B = torch.tensor([12, 7, 9])
    for row, length in enumerate(lengths_B.tolist()):
        targets_BT[row, length:] = IGNORED
    return tokens_BT, targets_BT, lengths_B


def test_transformers_opens_ours_with_equal_logits_loss_and_gradients(tmp_path: Path) -> None:
    ours = random_encoder()
    save_encoder(ours, tmp_path, pad_id=0)
    theirs = AutoModelForMaskedLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert isinstance(theirs, BertForMaskedLM)
    tokens_BT, targets_BT, lengths_B = batch()
    mask_BT = (torch.arange(12) < lengths_B[:, None]).long()
    wanted = theirs(tokens_BT, attention_mask=mask_BT, labels=targets_BT)
    found = ours.logits(ours.hidden_states(tokens_BT, lengths_B)).view(3, 12, -1)
    assert (found - wanted.logits)[mask_BT.bool()].abs().max() < 1e-4
    loss = ours(tokens_BT, targets_BT, lengths_B)
    assert abs(loss.item() - wanted.loss.item()) < 1e-5
    loss.backward()
    wanted.loss.backward()
    layer: Any = theirs.bert.encoder.layer[1]
    mine = dict(ours.named_parameters())
    pairs = [
        (mine["tokens"], theirs.bert.embeddings.word_embeddings.weight),
        (mine["positions"], theirs.bert.embeddings.position_embeddings.weight),
        (mine["blocks.1.norm_2.weight"], layer.output.LayerNorm.weight),
        (mine["transform.weight"], theirs.cls.predictions.transform.dense.weight),
    ]
    for our, their in pairs:
        assert our.grad is not None
        assert torch.allclose(our.grad, their.grad, rtol=1e-4, atol=1e-6)


def test_parts_of_the_input_are_told_apart_as_there(tmp_path: Path) -> None:
    ours = random_encoder()
    save_encoder(ours, tmp_path, pad_id=0)
    theirs = AutoModelForMaskedLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    tokens_BT, *_ = batch()
    types_BT = (torch.arange(12) >= 5).long().expand(3, 12)
    found = ours.logits(ours.hidden_states(tokens_BT, types_BT=types_BT))
    assert (found.view(3, 12, -1) - theirs(tokens_BT, token_type_ids=types_BT).logits).abs().max() < 1e-4


def test_we_open_what_transformers_saved_pooler_and_all(tmp_path: Path) -> None:
    config = BertConfig(
        vocab_size=53,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=40,
        max_position_embeddings=20,
    )
    theirs = BertForMaskedLM(config).eval()
    theirs.save_pretrained(tmp_path)
    ours = load_encoder(tmp_path)
    tokens_BT, *_ = batch()
    assert (ours.logits(ours.hidden_states(tokens_BT)).view(3, 12, -1) - theirs(tokens_BT).logits).abs().max() < 1e-4
    again = tmp_path / "again"
    again.mkdir()
    save_encoder(ours, again, pad_id=0)
    written, original = (json.loads((folder / "config.json").read_text()) for folder in (again, tmp_path))
    assert written == original


def test_the_parameters_are_as_many_as_counted() -> None:
    assert parameter_count(CONFIG).total == sum(parameter.numel() for parameter in new_encoder(CONFIG, 0).parameters())


@pytest.mark.parametrize(
    ("layers", "heads", "width", "total"), [(12, 12, 768, 109_514_298), (24, 16, 1024, 335_174_458)]
)
def test_published_sizes(layers: int, heads: int, width: int, total: int) -> None:
    config = ModelConfig(
        family="bert", layers=layers, heads=heads, width=width, context=512, vocab_size=30_522, types=2, norm="post"
    )
    assert parameter_count(config).total == total


def test_an_encoder_is_no_decoder_and_a_decoder_no_encoder(tmp_path: Path) -> None:
    save_encoder(random_encoder(), tmp_path, pad_id=0)
    with pytest.raises(UserError, match="fills blanks and writes no text"):
        load_model(tmp_path)
