"""Presets and the model configuration."""

from __future__ import annotations

import msgspec
import pytest

from stages.store.errors import UserError
from stages.store.presets import ModelConfig, list_presets, load_preset, read_preset
from stages.store.shape import model_config
from stages.store.sizes import parameter_count
from stages.store.specs.pretrain import Pretrain

LLAMA = {
    "family": "llama",
    "norm_kind": "rms",
    "positions": "rotary",
    "gated": True,
    "bias": False,
    "activation": "silu",
}
SMALL = {"layers": 1, "heads": 2, "width": 8, "context": 4, "vocab_size": 11}


def test_every_preset_loads_and_says_what_it_is() -> None:
    names = list_presets()
    assert names[:3] == ["tiny", "tiny-transformer-xl", "tiny-llama"]
    assert [parameter_count(load_preset(name)).total for name in names] == sorted(
        parameter_count(load_preset(name)).total for name in names
    )
    for name in names:
        preset = read_preset(name)
        assert preset.title and preset.about.endswith(".") and preset.source
        assert load_preset(name) == preset.model


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(UserError) as caught:
        load_preset("gpt2-smal")
    assert "gpt2-smal" in caught.value.title
    assert "'gpt2-small'" in caught.value.hint
    with pytest.raises(UserError) as caught:
        load_preset("../../secret")
    assert "tiny" in caught.value.hint


@pytest.mark.parametrize(
    "wrong",
    [
        {"heads": 3},
        {"layers": 0},
        {"width": "8"},
        {"dropout": 1.0},
        {"family": "gpt9"},
        {"layer": 1},
        {"norm": "post"},
        {"family": "gpt1"},
        {"family": "gpt1", "norm": "post", "ff_width": 9},
        {"family": "gpt2", "kv_heads": 1},
        {"family": "gpt2", "head_dim": 8},
        {"family": "gpt2", "window": 4},
        {"family": "llama"},
        LLAMA | {"kv_heads": 3},
        LLAMA | {"head_dim": 3},
        LLAMA | {"window": 4},
        LLAMA | {"out_bias": True},
        LLAMA | {"rope": {"kind": "llama3", "factor": 8.0}},
        LLAMA | {"family": "qwen3"},
        LLAMA | {"family": "mistral", "window": 4, "windowed_layers": [0]},
        LLAMA | {"family": "qwen2", "qkv_bias": True, "window": 4, "windowed_layers": [1]},
    ],
)
def test_a_shape_out_of_bounds_is_refused(wrong: dict[str, object]) -> None:
    msgspec.convert(SMALL, ModelConfig)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(SMALL | wrong, ModelConfig)


def test_the_same_shapes_are_accepted_where_a_family_can_say_them() -> None:
    for right in (
        LLAMA | {"kv_heads": 1, "head_dim": 6, "qkv_bias": True, "out_bias": True},
        LLAMA | {"family": "mistral", "window": 4},
        LLAMA | {"family": "qwen2", "qkv_bias": True, "window": 4, "windowed_layers": [0]},
        LLAMA | {"family": "qwen3", "qk_norm": True},
    ):
        assert msgspec.convert(SMALL | right, ModelConfig).family == right["family"]


def test_a_preset_changed_by_settings_keeps_its_proportions() -> None:
    settings = Pretrain(preset="small-llama", width=192, heads=12, layers=2)
    config = model_config(settings, 300)
    assert (config.layers, config.heads, config.key_heads, config.inner_width) == (2, 12, 4, 672)
    assert model_config(Pretrain(preset="small-llama", heads=4, width=96), 300).key_heads == 4
    assert model_config(Pretrain(preset="tiny", width=64), 300).inner_width == 256


def test_every_field_carries_a_sentence() -> None:
    schema = msgspec.json.schema(ModelConfig)["$defs"]["ModelConfig"]["properties"]
    assert len(schema) >= 12
    assert all(field.get("description", "").endswith(".") for field in schema.values())
