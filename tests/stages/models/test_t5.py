"""T5 against transformers: logits, loss, gradients, generation, and model folders both ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM, T5Config, T5ForConditionalGeneration

from stages.models.hf import load_model
from stages.models.loss import IGNORED
from stages.models.t5 import T5, bucket_of, load_t5, moved_right, new_t5, save_t5
from stages.store.architecture import ModelConfig
from stages.store.errors import UserError
from stages.store.presets import load_preset
from stages.store.sizes import parameter_count

T5_1_0 = ModelConfig(
    family="t5",
    layers=2,
    decoder_layers=3,
    heads=2,
    head_dim=6,
    width=16,
    ff_width=40,
    context=20,
    vocab_size=53,
    norm_kind="rms",
    norm_eps=1e-6,
    positions="relative",
    buckets=8,
    bucket_distance=12,
    bias=False,
    activation="relu",
    scaled_logits=True,
)
T5_1_1 = msgspec.structs.replace(T5_1_0, tied=False, scaled_logits=False, gated=True, activation="gelu_tanh")
BOTH = pytest.mark.parametrize("config", [T5_1_0, T5_1_1], ids=["1.0", "1.1"])


def random_t5(config: ModelConfig) -> T5:
    """Weights large enough that a mistake anywhere shows."""
    model = new_t5(config, 0)
    for number, parameter in enumerate(model.parameters()):
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
        parameter.data.add_(noise * 0.2)
    return model.eval()


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What is read (3, 19), as many tokens as count, and targets (3, 7)."""
    dice = torch.Generator().manual_seed(1)
    read_BS = torch.randint(2, 53, (3, 19), generator=dice)
    targets_BT = torch.randint(2, 53, (3, 7), generator=dice)
    targets_BT[1, 5:] = IGNORED
    return read_BS, torch.tensor([19, 11, 15]), targets_BT


def save(model: T5, folder: Path) -> Path:
    save_t5(model, folder, pad_id=0, eos_id=1)
    return folder


def theirs_in(folder: Path) -> Any:
    return AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()


@BOTH
def test_transformers_opens_ours_with_equal_logits_loss_and_gradients(config: ModelConfig, tmp_path: Path) -> None:
    ours = random_t5(config)
    theirs = theirs_in(save(ours, tmp_path))
    assert isinstance(theirs, T5ForConditionalGeneration)
    read_BS, lengths_B, targets_BT = batch()
    mask_BS = (torch.arange(19) < lengths_B[:, None]).long()
    wanted = theirs(read_BS, attention_mask=mask_BS, labels=targets_BT)
    written_BT = moved_right(targets_BT, 0)
    found = ours.logits(ours.hidden_states(read_BS, written_BT, lengths_B))
    assert (found - wanted.logits).abs().max() < 1e-4
    loss = ours(read_BS, written_BT, targets_BT, lengths_B)
    assert abs(loss.item() - wanted.loss.item()) < 1e-5
    loss.backward()
    wanted.loss.backward()
    encoder, decoder = theirs.encoder.block[1].layer, theirs.decoder.block[2].layer
    mine = dict(ours.named_parameters())
    pairs = [
        (mine["tokens"], theirs.shared.weight.grad),
        (mine["encoder_bias"], theirs.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight.grad),
        (mine["decoder_bias"], theirs.decoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight.grad),
        (mine["encoder_blocks.1.norm_2.weight"], encoder[1].layer_norm.weight.grad),
        (mine["decoder_blocks.2.cross_norm.weight"], decoder[1].layer_norm.weight.grad),
        (mine["decoder_blocks.2.cross_in.weight"], decoder[1].EncDecAttention.q.weight.grad.T),
    ]
    for our, their in pairs:
        assert our.grad is not None
        assert torch.allclose(our.grad, their, rtol=1e-4, atol=1e-5)


@BOTH
def test_we_open_what_transformers_saved_and_write_its_configuration(config: ModelConfig, tmp_path: Path) -> None:
    tie = config.tied
    theirs = T5ForConditionalGeneration(
        T5Config(
            vocab_size=53,
            d_model=16,
            d_kv=6,
            d_ff=40,
            num_layers=2,
            num_decoder_layers=3,
            num_heads=2,
            feed_forward_proj="relu" if tie else "gated-gelu",
            tie_word_embeddings=tie,
            decoder_start_token_id=0,
        )
    ).eval()
    theirs.save_pretrained(tmp_path)
    if not tie:  # published files of T5 1.1 have an output layer of their own
        weights = load_file(tmp_path / "model.safetensors") | {"lm_head.weight": torch.randn(53, 16)}
        save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
        theirs = theirs_in(tmp_path)
    read_BS, _, targets_BT = batch()
    ours = load_t5(tmp_path)
    assert (ours.head is None) == tie
    written_BT = moved_right(targets_BT, 0)
    found = ours.logits(ours.hidden_states(read_BS, written_BT))
    assert (found - theirs(read_BS, decoder_input_ids=written_BT).logits).abs().max() < 1e-4
    again = tmp_path / "again"
    again.mkdir()
    save(ours, again)
    for name in ("config.json", "generation_config.json"):
        written, original = (json.loads((folder / name).read_text()) for folder in (again, tmp_path))
        written.pop("n_positions", None)
        written["tie_word_embeddings"] = original.get("tie_word_embeddings")  # theirs says true in either case
        assert written == original | {"tie_word_embeddings": original.get("tie_word_embeddings")}


def test_buckets_are_those_of_the_released_code() -> None:
    from transformers.models.t5.modeling_t5 import T5Attention

    distances = torch.arange(-300, 301)
    for both_ways in (True, False):
        theirs = T5Attention._relative_position_bucket(distances, both_ways, 32, 128)
        assert torch.equal(bucket_of(distances, 32, 128, both_ways=both_ways), theirs)


@BOTH
def test_written_token_by_token_it_gives_the_logits_of_the_whole(config: ModelConfig) -> None:
    model = random_t5(config)
    read_BS, lengths_B, targets_BT = batch()
    written_BT = moved_right(targets_BT, 0)
    whole = model.hidden_states(read_BS, written_BT, lengths_B)
    states = model.encode(read_BS, lengths_B)
    reads = [layer.keys_of(states) for layer in model.decoder_blocks]  # type: ignore[operator]
    before = None
    for place in range(written_BT.shape[1]):
        h, before = model.write(written_BT[:, place : place + 1], reads, lengths_B, before)
        assert (h[:, 0] - whole[:, place]).abs().max() < 1e-4


@BOTH
def test_the_parameters_are_as_many_as_counted(config: ModelConfig) -> None:
    assert parameter_count(config).total == sum(parameter.numel() for parameter in new_t5(config, 0).parameters())


@pytest.mark.parametrize(("preset", "total"), [("t5-small", 60_506_624), ("t5-base", 222_903_552)])
def test_published_sizes(preset: str, total: int) -> None:
    assert parameter_count(load_preset(preset)).total == total


def test_a_t5_is_no_decoder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="encoder-decoder"):
        load_model(save(random_t5(T5_1_0), tmp_path))
