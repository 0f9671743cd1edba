"""A model's shape as data, and the shapes that ship with the app."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import tomli
from msgspec import Meta

import assets
from stages.store.errors import UserError

FOLDER = Path(assets.__file__).parent / "models"


class ModelConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The shape of a decoder: everything that fixes its parameters and its function but the weights themselves."""

    family: Annotated[
        Literal["gpt2", "gpt1"], Meta(description="The published architecture whose file format a checkpoint takes.")
    ] = "gpt2"
    layers: Annotated[int, Meta(ge=1, le=1000, description="Number of transformer blocks.")]
    heads: Annotated[int, Meta(ge=1, le=1024, description="Attention heads in each block; they divide the width.")]
    width: Annotated[int, Meta(ge=1, le=65_536, description="Numbers in the vector that stands for one token.")]
    ff_width: Annotated[
        Annotated[int, Meta(ge=1, le=1_048_576)] | None,
        Meta(description="Width of the hidden layer of each feed-forward network; four times the width when left out."),
    ] = None
    context: Annotated[int, Meta(ge=1, le=1_048_576, description="The most tokens that the model can look at.")]
    vocab_size: Annotated[int, Meta(ge=1, le=4_194_304, description="Number of different tokens.")]
    norm: Annotated[
        Literal["pre", "post"],
        Meta(description="Whether layer norm stands before each sub-layer (GPT-2) or after the residual sum (GPT-1)."),
    ] = "pre"
    norm_eps: Annotated[float, Meta(gt=0, lt=1, description="Added to the variance in layer norm.")] = 1e-5
    dropout: Annotated[
        float, Meta(ge=0, lt=1, description="Share of activations set to zero while training; 0 turns it off.")
    ] = 0.0
    tied: Annotated[bool, Meta(description="Whether the output layer is the token embedding itself.")] = True
    bias: Annotated[bool, Meta(description="Whether linear layers and layer norms have bias vectors.")] = True
    activation: Annotated[
        Literal["gelu_tanh", "gelu", "relu"], Meta(description="The non-linearity of the feed-forward network.")
    ] = "gelu_tanh"

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"`heads` must divide `width`, but {self.width} is no multiple of {self.heads}")
        if self.norm != ("pre" if self.family == "gpt2" else "post"):
            raise ValueError(f"`norm` is 'pre' for gpt2 and 'post' for gpt1, not {self.norm!r} for {self.family}")
        if self.family == "gpt1" and (self.inner_width != 4 * self.width or self.activation == "gelu"):
            raise ValueError("gpt1 has `ff_width` of four times the width and `activation` gelu_tanh or relu")

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def inner_width(self) -> int:
        """The feed-forward width that is in force."""
        return self.ff_width or 4 * self.width


class Preset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of assets/models."""

    title: str
    about: str
    source: str
    model: ModelConfig


def list_presets() -> list[str]:
    """The names of all presets, smallest model first."""
    return sorted((path.stem for path in FOLDER.glob("*.toml")), key=_rank)


def read_preset(name: str) -> Preset:
    """The preset with its title, sentence and source. Raises UserError when there is none of that name."""
    names = list_presets()
    if name not in names:
        near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.4)
        hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(names)}."
        raise UserError(f"There is no preset named {name!r}.", hint)
    return msgspec.convert(tomli.loads((FOLDER / f"{name}.toml").read_text("utf-8")), Preset)


def load_preset(name: str) -> ModelConfig:
    """The shape that the preset of that name describes. Raises UserError when there is none."""
    return read_preset(name).model


def _rank(name: str) -> tuple[int, str]:
    model = msgspec.convert(tomli.loads((FOLDER / f"{name}.toml").read_text("utf-8")), Preset).model
    return model.layers * model.width * (4 * model.width + 2 * model.inner_width), name
