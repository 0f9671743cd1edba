"""A decoder as a Hugging Face model folder: what AutoModelForCausalLM opens, and what it saved.

Weights are safetensors only, under the names of GPT2LMHeadModel and OpenAIGPTLMHeadModel; linear layers keep the
(inputs, outputs) orientation of those classes' Conv1D, which is ours. A tied output layer is saved once.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from stages.models.decoder import Decoder
from stages.models.hf_config import config_json, generation_json, read_config, read_json, write_json
from stages.store.errors import UserError
from stages.store.presets import ModelConfig
from stages.tensors import save_tensors

__all__ = ["load_model", "read_config", "save_weights"]

SHARD_BYTES = 5 * 10**9
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
METADATA = {"format": "pt"}
"""Without it transformers refuses a file."""
DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
STORED = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "F64": torch.float64}

LAYER_NAMES = {
    "norm_1": "ln_1",
    "attention_in": "attn.c_attn",
    "attention_out": "attn.c_proj",
    "norm_2": "ln_2",
    "mlp_in": "mlp.c_fc",
    "mlp_out": "mlp.c_proj",
}


def save_weights(
    model: Decoder,
    folder: Path,
    *,
    bos_id: int | None = None,
    eos_id: int | None = None,
    pad_id: int | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write config.json, generation_config.json and the weights into an existing folder.

    Nothing is synced or renamed: the caller owns how a checkpoint becomes visible. Raises OSError when the disk
    refuses.
    """
    ids = {"bos": bos_id, "eos": eos_id, "pad": pad_id}
    dtype = DTYPES[model.tokens.dtype]
    write_json(folder / "config.json", config_json(model.config, dtype, ids))
    write_json(folder / "generation_config.json", generation_json(model.config, ids))
    _save_shards(_published(model), folder, shard_bytes)


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
    config = config or read_config(folder)
    with torch.device("meta"):
        model = Decoder(config)
    places = {_name(config, ours): parameter for ours, parameter in model.named_parameters()}
    found = _locate(folder, places)
    with torch.no_grad():
        fresh: dict[str, Tensor] = {}
        for path, names in found.items():
            for name, tensor in _read(path, names, places):
                fresh[name] = tensor.to(device=device, dtype=dtype or tensor.dtype, copy=True)
    kinds = {tensor.dtype for tensor in fresh.values()}
    if len(kinds) > 1:
        fresh = {name: tensor.to(fresh[_name(config, "tokens")].dtype) for name, tensor in fresh.items()}
    state = {ours: fresh[_name(config, ours)] for ours, _ in model.named_parameters()}
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval()


def _name(config: ModelConfig, ours: str) -> str:
    """The published name of one of our parameters."""
    gpt1 = config.family == "gpt1"
    whole = {
        "tokens": "transformer.tokens_embed.weight" if gpt1 else "transformer.wte.weight",
        "positions": "transformer.positions_embed.weight" if gpt1 else "transformer.wpe.weight",
        "head": "lm_head.weight",
        "final_norm.weight": "transformer.ln_f.weight",
        "final_norm.bias": "transformer.ln_f.bias",
    }
    if ours in whole:
        return whole[ours]
    _, layer, part, kind = ours.split(".")
    return f"transformer.h.{layer}.{LAYER_NAMES[part]}.{kind}"


def _published(model: Decoder) -> dict[str, Tensor]:
    """Name -> tensor as the published classes have them: on the CPU, biases of 0 where ours has none."""
    tensors = {}
    for ours, parameter in model.named_parameters():
        name = _name(model.config, ours)
        tensors[name] = parameter.detach().to("cpu").contiguous()
        bias = name.removesuffix(".weight") + ".bias"
        if not model.config.bias and ours.count(".") and name.endswith(".weight"):
            tensors[bias] = torch.zeros(parameter.shape[-1], dtype=parameter.dtype)
    return tensors


def _save_shards(tensors: dict[str, Tensor], folder: Path, shard_bytes: int) -> None:
    shards: list[dict[str, Tensor]] = [{}]
    room = shard_bytes
    for name, tensor in tensors.items():
        if tensor.nbytes > room and shards[-1]:
            shards.append({})
            room = shard_bytes
        shards[-1][name] = tensor
        room -= tensor.nbytes
    if len(shards) == 1:
        save_tensors(shards[0], folder / WEIGHTS, METADATA)
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file_name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_tensors(shard, folder / file_name, METADATA)
        weight_map |= dict.fromkeys(shard, file_name)
    totals = {
        "total_parameters": sum(tensor.numel() for tensor in tensors.values()),
        "total_size": sum(tensor.nbytes for tensor in tensors.values()),
    }
    write_json(folder / INDEX, {"metadata": totals, "weight_map": weight_map})


def _locate(folder: Path, wanted: dict[str, Any]) -> dict[Path, list[tuple[str, str]]]:
    """File -> pairs of (published name, name in the file), for all wanted names. Raises UserError for missing ones."""
    where = _contents(folder)
    found: dict[Path, list[tuple[str, str]]] = {}
    missing = []
    for name in wanted:
        # GPT-2's first published files name the bare transformer's tensors, without the prefix.
        stored = next((n for n in (name, name.removeprefix("transformer.")) if n in where), None)
        if stored is None:
            missing.append(name)
        else:
            found.setdefault(where[stored], []).append((name, stored))
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(f"The weights in {folder} lack {missing[0]}{more}.", "Its config.json describes another model.")
    return found


def _contents(folder: Path) -> dict[str, Path]:
    """Tensor name -> the file that holds it."""
    if (folder / WEIGHTS).is_file():
        with _open(folder / WEIGHTS) as file:
            return dict.fromkeys(file.keys(), folder / WEIGHTS)
    if (folder / INDEX).is_file():
        weight_map = read_json(folder / INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise UserError(f"{folder / INDEX} has no weight_map from tensor names to file names.")
        for name in weight_map.values():
            if Path(name).name != name or not name.endswith(".safetensors"):
                raise UserError(f"{folder / INDEX} points to {name!r}, which is no safetensors file of that folder.")
        return {tensor: folder / name for tensor, name in weight_map.items()}
    pickles = sorted(path.name for path in folder.glob("*.bin")) + sorted(path.name for path in folder.glob("*.pt"))
    if pickles:
        raise UserError(
            f"{folder} holds its weights only as a pickle ({pickles[0]}), which could run code when opened.",
            "Convert it to safetensors where you trust it.",
        )
    raise UserError(f"{folder} holds no {WEIGHTS}.", "Is this a Hugging Face model folder?")


def _open(path: Path) -> Any:
    try:
        return safe_open(path, "pt")
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read as safetensors: {error}.", "It may be cut short or damaged.") from error


def _read(path: Path, names: list[tuple[str, str]], places: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Published name and tensor, each checked for shape and dtype before its bytes are touched."""
    with _open(path) as file:
        present = set(file.keys())
        for name, stored in names:
            if stored not in present:
                raise UserError(f"{path} lacks {stored}, which the index says it holds.")
            piece = file.get_slice(stored)
            shape, wanted = tuple(piece.get_shape()), tuple(places[name].shape)
            if shape != wanted:
                raise UserError(f"{stored} in {path} has shape {shape}, and config.json asks for {wanted}.")
            if piece.get_dtype() not in STORED:
                raise UserError(f"{stored} in {path} is stored as {piece.get_dtype()}, which is no known float type.")
            yield name, file.get_tensor(stored)
