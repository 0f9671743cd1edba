"""Settings are checked against the spec; each mistake is one line that says where and what was expected."""

import pytest

from stages.store.errors import UserError
from stages.store.specs import STAGES, spec_of
from stages.store.specs.pretrain import Pretrain
from stages.store.strict import fields, parse, parse_text

MISTAKES = [
    ({"lrr": 1e-3}, "unknown key 'pretrain.lrr'", "'lr'"),
    ({"lr": "fast"}, "'pretrain.lr' is 'fast'", "a number from 0 to 1"),
    ({"lr": 2.0}, "'pretrain.lr' is 2.0", "a number from 0 to 1"),
    ({"lr": float("nan")}, "'pretrain.lr'", "a number"),
    ({"steps": 1.5}, "'pretrain.steps' is 1.5", "a whole number from 1"),
    ({"steps": True}, "'pretrain.steps' is True", "a whole number"),
    ({"layers": 0}, "'pretrain.layers' is 0", "or nothing"),
    ({"precision": "fp33"}, "'pretrain.precision' is 'fp33'", "Did you mean 'fp32'"),
    ({"sample_prompts": 3}, "'pretrain.sample_prompts' is 3", "a list"),
]


@pytest.mark.parametrize(("values", "what", "expected"), MISTAKES)
def test_a_mistake_is_one_line(values: dict[str, object], what: str, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(Pretrain, values, "my.toml", "pretrain.")
    line = str(caught.value)
    assert line.startswith("my.toml: ")
    assert what in line
    assert expected in line
    assert "\n" not in line


def test_text_is_read_as_the_field_needs_it() -> None:
    assert parse_text(Pretrain, "lr", "3e-4", "--set") == 3e-4
    assert parse_text(Pretrain, "steps", "2_000", "--set") == 2_000
    assert parse_text(Pretrain, "steps", "1e4", "--set") == 10_000
    assert parse_text(Pretrain, "layers", "", "--set") is None
    assert parse_text(Pretrain, "deterministic", "yes", "--set") is True
    assert parse_text(Pretrain, "sample_prompts", '["a, b", "c"]', "--set") == ["a, b", "c"]
    for key, text in (("lr", "x"), ("steps", "2.5"), ("deterministic", "maybe")):
        with pytest.raises(UserError):
            parse_text(Pretrain, key, text, "--set")


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_every_field_says_what_it_is_and_has_a_valid_default(stage: str) -> None:
    for field in fields(spec_of(stage)):
        assert field.description.endswith("."), field.name
        assert field.kind in ("bool", "int", "float", "str", "choice", "list"), field.name
        if not field.required:
            parse(spec_of(stage), {**_required(stage), field.name: field.default}, "defaults")


def _required(stage: str) -> dict[str, object]:
    return {field.name: [] if field.kind == "list" else "x" for field in fields(spec_of(stage)) if field.required}


def test_an_unknown_stage_names_the_nearest() -> None:
    with pytest.raises(UserError, match="pretrain"):
        spec_of("pre-train")


def test_a_list_nested_beyond_reason_is_text() -> None:
    deep = "[" * 5_000
    assert parse_text(Pretrain, "sample_prompts", deep, "--set") == [deep]


@pytest.mark.parametrize("key", ["preset", "steps", "sample_prompts"])
def test_bytes_that_are_no_utf8_are_refused_in_one_sentence(key: str) -> None:
    with pytest.raises(UserError, match=f"'{key}' is .*expected text in UTF-8"):
        parse_text(Pretrain, key, "a\udcffb", "--set")
