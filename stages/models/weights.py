"""Safetensors files of a model folder: which tensors stand where, and reading them in pieces.

A mapped file counts as memory once it has been read, so files are opened anew every so many bytes: what is held while
loading is the model, and little else.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from stages.models.hf_config import read_json
from stages.store.errors import UserError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
CHUNK = 8 * 2**20
"""Bytes that are read before the file is opened anew."""
STORED = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "F64": torch.float64}
"""Float types by their names in safetensors."""


class Stored(NamedTuple):
    """A tensor as a file describes it."""

    file: Path
    shape: tuple[int, ...]
    dtype: str
    """As safetensors names it: F32, BF16 …"""


def contents(folder: Path) -> dict[str, Stored]:
    """All tensors of a model folder by name. Raises UserError when files are missing, damaged or not safetensors."""
    found: dict[str, Stored] = {}
    listed = index(folder)
    for path in sorted(set(listed.values())) if listed else [folder / WEIGHTS]:
        with open_file(path) as file:
            for name in file.keys():  # noqa: SIM118 - safe_open is no dictionary
                piece = file.get_slice(name)
                found[name] = Stored(path, tuple(piece.get_shape()), piece.get_dtype())
    for name, path in listed.items():
        if name not in found or found[name].file != path:
            raise UserError(f"{path} lacks {name}, which the index says it holds.")
    return found


def index(folder: Path) -> dict[str, Path]:
    """Tensor name -> its file, for weights in several files; empty for a single one. UserError without either."""
    if (folder / WEIGHTS).is_file():
        return {}
    if (folder / INDEX).is_file():
        weight_map = read_json(folder / INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise UserError(f"{folder / INDEX} has no weight_map from tensor names to file names.")
        for name in weight_map.values():
            if Path(name).name != name or not name.endswith(".safetensors"):
                raise UserError(f"{folder / INDEX} points to {name!r}, which is no safetensors file of that folder.")
        if not weight_map:
            raise UserError(f"{folder / INDEX} names no tensor.")
        return {tensor: folder / name for tensor, name in weight_map.items()}
    pickles = sorted(path.name for path in folder.glob("*.bin")) + sorted(path.name for path in folder.glob("*.pt*"))
    if pickles:
        raise UserError(
            f"{folder} holds its weights only as a pickle ({pickles[0]}), which could run code when opened.",
            "Convert it to safetensors where you trust it.",
        )
    raise UserError(f"{folder} holds no {WEIGHTS}.", "Is this a Hugging Face model folder?")


def open_file(path: Path) -> Any:
    """The library's handle on a safetensors file. Raises UserError when its header or its length is wrong."""
    try:
        return safe_open(path, "pt")
    except (OSError, SafetensorError) as error:
        reason = str(error)[:300]
        raise UserError(
            f"{path} cannot be read as safetensors: {reason}.", "It may be cut short or damaged."
        ) from error


def read_rows(path: Path, names: list[str]) -> Iterator[tuple[str, int, Tensor]]:
    """Pieces of the named tensors of a file, along their first dimension: name, first row, rows.

    A piece is valid until the next is asked for.
    """
    file, read = open_file(path), 0
    for name in names:
        shape = file.get_slice(name).get_shape()
        start = 0
        while start < shape[0]:
            if read >= CHUNK:
                file, read = open_file(path), 0
            piece = file.get_slice(name)
            row = max(1, _bytes(piece) // shape[0])
            rows = piece[start : start + max(1, CHUNK // row)]
            read += rows.nbytes
            yield name, start, rows
            start += len(rows)
            del rows, piece


def _bytes(piece: Any) -> int:
    count = 1
    for size in piece.get_shape():
        count *= size
    return count * STORED[piece.get_dtype()].itemsize
