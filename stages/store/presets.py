"""The shapes of models that ship with the app."""

from __future__ import annotations

import difflib
from pathlib import Path

import msgspec
import tomli

import assets
from stages.store.architecture import ModelConfig
from stages.store.errors import UserError
from stages.store.sizes import parameter_count

FOLDER = Path(assets.__file__).parent / "models"
PLANNED = Path(assets.__file__).parent / "planned"
"""Models to plan with: see `stages.store.planned`."""


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
        if (PLANNED / f"{name}.toml").is_file():
            raise UserError(f"{name} is for planning only: no model of its shape can be trained here.", _offer(names))
        near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.4)
        hint = f"Did you mean {near[0]!r}?" if near else _offer(names)
        raise UserError(f"There is no preset named {name!r}.", hint)
    return msgspec.convert(tomli.loads((FOLDER / f"{name}.toml").read_text("utf-8")), Preset)


def load_preset(name: str) -> ModelConfig:
    """The shape that the preset of that name describes. Raises UserError when there is none."""
    return read_preset(name).model


def _offer(names: list[str]) -> str:
    return f"There are: {', '.join(names)}."


def _rank(name: str) -> tuple[int, str]:
    model = msgspec.convert(tomli.loads((FOLDER / f"{name}.toml").read_text("utf-8")), Preset).model
    return parameter_count(model).total, name
