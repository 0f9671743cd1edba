"""A decoder as a Hugging Face model folder: what AutoModelForCausalLM opens, and what it saved.

What stands on a decoder (`stages.models.value`) uses the same parts: its parameters are the decoder's, with `decoder.`
before their names, and its own; so do heads that label (`stages.models.heads`), on a `body` of either kind.

Weights are safetensors only, under the names and in the orientation of the published classes, which
`stages.models.names` maps to ours. A tied output layer is saved once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from stages.models.decoder import Decoder
from stages.models.hf_config import Ids, config_json, generation_json, read_config, refuse_reward_model, write_json
from stages.models.names import Piece, is_weight, pieces, spellings
from stages.models.tensors import save_tensors
from stages.models.weights import INDEX, STORED, WEIGHTS, Stored, contents, read_rows
from stages.store.architecture import ModelConfig
from stages.store.errors import UserError

__all__ = ["load_model", "read_config", "save_weights"]

SHARD_BYTES = 5 * 10**9
METADATA = {"format": "pt"}
"""Without it transformers refuses a file."""
M = TypeVar("M", bound=nn.Module)
DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


def save_weights(
    model: Decoder,
    folder: Path,
    *,
    bos_id: int | list[int] | None = None,
    eos_id: int | list[int] | None = None,
    pad_id: int | list[int] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write config.json, generation_config.json and the weights into an existing folder.

    Nothing is synced or renamed: the caller owns how a checkpoint becomes visible. Raises OSError when the disk
    refuses.
    """
    ids: Ids = {"bos": bos_id, "eos": eos_id, "pad": pad_id}
    dtype = DTYPES[model.tokens.dtype]
    write_json(folder / "config.json", config_json(model.config, dtype, ids))
    write_json(folder / "generation_config.json", generation_json(model.config, ids))
    save_published(model, model.config, folder, shard_bytes)


def save_published(model: nn.Module, config: ModelConfig, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
    """Write the weights alone, under their published names."""
    _save_shards(_published(model, config), folder, shard_bytes)


def load_model(
    folder: Path,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    config: ModelConfig | None = None,
) -> Decoder:
    """The decoder in a model folder, in evaluation mode; dtype None keeps the stored one.

    `config` replaces what config.json says (a dropout of one's own, say). Raises UserError with one sentence when the
    folder lacks something, or holds what this decoder cannot be filled with.
    """
    refuse_reward_model(folder)
    return fill(Decoder, folder, config or read_config(folder), dtype, device)


def fill(
    build: Callable[[ModelConfig], M],
    folder: Path,
    config: ModelConfig,
    dtype: torch.dtype | None,
    device: torch.device | str,
) -> M:
    """The model that `build` makes, filled from a folder's files, in evaluation mode. Raises UserError as above."""
    with torch.device("meta"):
        model = build(config)
    found = _match(folder, config, model)
    kept = STORED[found[pieces(config, "tokens")[0].name][1].dtype]
    model = model.to(dtype or kept).to_empty(device=device)
    places = _places(model, config)
    by_file: dict[Path, dict[str, str]] = {}
    for name, (stored_name, stored) in found.items():
        by_file.setdefault(stored.file, {})[stored_name] = name
    with torch.no_grad():
        for path, names in by_file.items():
            for stored_name, start, rows in read_rows(path, list(names)):
                places[names[stored_name]].fill(start, rows)
    return model.eval()


def match(
    folder: Path, config: ModelConfig, build: Callable[[ModelConfig], nn.Module]
) -> dict[str, tuple[str, Stored]]:
    """Each published name that the model needs, with its name in the files (which may lack the prefix) and place.

    Reads no weights. Raises UserError when a tensor is missing, unknown, of another shape or of no known float type.
    """
    with torch.device("meta"):
        return _match(folder, config, build(config))


def _match(folder: Path, config: ModelConfig, model: nn.Module) -> dict[str, tuple[str, Stored]]:
    stored = contents(folder)
    places = _places(model, config)
    found: dict[str, tuple[str, Stored]] = {}
    missing = []
    for name, place in places.items():
        own = next((n for n in spellings(config, name) if n in stored), None)
        if own is None:
            missing.append(name)
            continue
        found[name] = (own, stored[own])
        _check(own, stored[own], place.shape)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(f"The weights in {folder} lack {missing[0]}{more}.", "Its config.json describes another model.")
    known = {own for own, _ in found.values()}
    unknown = [name for name in stored if name not in known and is_weight(config, name)]
    if unknown:
        raise UserError(
            f"The weights in {folder} hold {unknown[0][:100]!r}, which the model in config.json does not have.",
            "Its config.json describes another model.",
        )
    return found


class Place(NamedTuple):
    """Where a published tensor goes: columns of one of our parameters."""

    parameter: Tensor
    piece: Piece

    @property
    def columns(self) -> Tensor:
        """A view of them, in our orientation."""
        if self.piece.stop < 0:
            return self.parameter
        return self.parameter[..., self.piece.start : self.piece.stop]

    @property
    def published(self) -> Tensor:
        """A view of them, in the published orientation."""
        return self.columns.t() if self.piece.transposed else self.columns

    @property
    def shape(self) -> tuple[int, ...]:
        """As it is published."""
        return tuple(self.published.shape)

    def fill(self, start: int, rows: Tensor) -> None:
        """Put rows of the published tensor in place, from row `start` on."""
        self.published[start : start + len(rows)].copy_(rows)


def _places(model: nn.Module, config: ModelConfig) -> dict[str, Place]:
    """Published name -> place, in the order of our parameters."""
    assert not any(".lora." in ours for ours, _ in model.named_parameters()), "merge the adapters, or save them apart"
    return {
        piece.name: Place(parameter.detach(), piece)
        for ours, parameter in model.named_parameters()
        for piece in pieces(config, _own(ours))
    }


def _own(ours: str) -> str:
    """A parameter's name in the decoder or encoder that something stands on."""
    return ours.removeprefix("decoder.").removeprefix("body.")


def _check(name: str, stored: Stored, wanted: tuple[int, ...]) -> None:
    if stored.shape != wanted:
        raise UserError(f"{name} in {stored.file} has shape {stored.shape}, and config.json asks for {wanted}.")
    if stored.dtype not in STORED:
        raise UserError(f"{name} in {stored.file} is stored as {stored.dtype}, which is no known float type.")


def _published(model: nn.Module, config: ModelConfig) -> dict[str, Tensor]:
    """Name -> a view of the weights as the published classes have them.

    GPT's classes always have biases: they are 0 where ours has none.
    """
    tensors = {name: place.published for name, place in _places(model, config).items()}
    if config.family in ("gpt2", "gpt1") and not config.bias:
        for ours, parameter in model.named_parameters():
            if ours.endswith(".weight") and not ours.endswith("_head.weight"):
                name = pieces(config, _own(ours))[0].name.removesuffix(".weight") + ".bias"
                tensors[name] = torch.zeros(parameter.shape[-1], dtype=parameter.dtype)
    return tensors


def _save_shards(tensors: dict[str, Tensor], folder: Path, shard_bytes: int) -> None:
    """Write the tensors into one file, or into several of about `shard_bytes` with an index."""
    shards: list[list[str]] = [[]]
    room = shard_bytes
    for name, tensor in tensors.items():
        if tensor.nbytes > room and shards[-1]:
            shards.append([])
            room = shard_bytes
        shards[-1].append(name)
        room -= tensor.nbytes
    if len(shards) == 1:
        save_tensors({name: _plain(tensor) for name, tensor in tensors.items()}, folder / WEIGHTS, METADATA)
        return
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file_name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_tensors({name: _plain(tensors[name]) for name in names}, folder / file_name, METADATA)
        weight_map |= dict.fromkeys(names, file_name)
    totals = {
        "total_parameters": sum(tensor.numel() for tensor in tensors.values()),
        "total_size": sum(tensor.nbytes for tensor in tensors.values()),
    }
    write_json(folder / INDEX, {"metadata": totals, "weight_map": weight_map})


def _plain(tensor: Tensor) -> Tensor:
    """The tensor on the CPU and contiguous; not copied where it is so already."""
    return tensor.to("cpu").contiguous()
