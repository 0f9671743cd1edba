"""Presets and the model configuration."""

from __future__ import annotations

import msgspec
import pytest

from stages.store.errors import UserError
from stages.store.presets import ModelConfig, list_presets, load_preset, read_preset

SMALL = {"layers": 1, "heads": 2, "width": 8, "context": 4, "vocab_size": 11}


def test_every_preset_loads_and_says_what_it_is() -> None:
    names = list_presets()
    assert names == ["tiny", "small", "gpt1", "gpt2-small", "gpt2-medium", "gpt2-large", "gpt2-xl"]
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
    ],
)
def test_a_shape_out_of_bounds_is_refused(wrong: dict[str, object]) -> None:
    msgspec.convert(SMALL, ModelConfig)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(SMALL | wrong, ModelConfig)


def test_every_field_carries_a_sentence() -> None:
    schema = msgspec.json.schema(ModelConfig)["$defs"]["ModelConfig"]["properties"]
    assert len(schema) >= 12
    assert all(field.get("description", "").endswith(".") for field in schema.values())
