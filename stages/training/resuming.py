"""What a checkpoint's folder resume/ holds of optimiser and random numbers, for one process or several.

    one process      optimizer.safetensors, the moments in flat buffers, and random.safetensors
    several          rank-<r>-of-<n>.safetensors: of each parameter's moments the rows of process r, cut as
                     `torch.chunk` cuts, under exp_avg/NAME and exp_avg_sq/NAME, and its random numbers; index.json

Of a further model that learns, such as PPO's value model, one process writes optimizer.MODEL.safetensors, and several
begin the names in their files with MODEL/.

Each number of processes goes on from what any other has written. With the same number it goes on bit for bit; with
another, the sums of gradients round differently, and dropout draws other numbers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from stages.models.tensors import save_tensors
from stages.optim import AdamW
from stages.store.files import write_atomic
from stages.training import distributed

INDEX = "index.json"
RANDOM = "random."
UPDATES = "updates"


class Index(msgspec.Struct, kw_only=True):
    """index.json: the files, in the order of the processes, and the rows of each parameter."""

    files: list[str]
    rows: dict[str, int]
    schema: int = 1


def save(folder: Path, progress: bytes, optimizers: Mapping[str, AdamW]) -> None:
    """Make the folder and fill it. The other processes, if there are any, must come to `help_save`.

    optimizers: by the name of their model, which is empty for the one that the run is about.
    """
    folder.mkdir()
    if distributed.several():
        distributed.broadcast_object(str(folder))
        _save_piece(folder, optimizers)
        distributed.barrier()
        files = [_file(rank) for rank in range(distributed.size())]
        rows = {
            _prefix(model) + name: _rows(parameter)
            for model, each in optimizers.items()
            for name, parameter in zip(each.names, each.parameters, strict=True)
        }
        write_atomic(folder / INDEX, msgspec.json.encode(Index(files=files, rows=rows)), durable=False)
    else:
        for model, each in optimizers.items():
            save_tensors(each.state(), folder / _alone(model))
        save_tensors(_random_state(), folder / "random.safetensors")
    write_atomic(folder / "progress.json", progress, durable=False)


def help_save(optimizers: Mapping[str, AdamW]) -> None:
    """Write this process's file where the first process says, while that is in `save`."""
    folder = Path(distributed.broadcast_object(None))
    _save_piece(folder, optimizers)
    distributed.barrier()


def load(folder: Path, optimizer: AdamW, step: int) -> None:
    """Put moments and random numbers back.

    With another number of processes than wrote them, random numbers are seeded by the run's seed and `step` instead.
    Raises OSError, SafetensorError or KeyError when something is missing.
    """
    load_moments(folder, optimizer)
    written = len(_index(folder).files) if (folder / INDEX).exists() else 1
    if written != distributed.size():
        torch.manual_seed(torch.initial_seed() + step)
        return
    name = _file(distributed.rank()) if written > 1 else "random.safetensors"
    with safe_open(folder / name, "pt") as file:
        prefix = RANDOM if written > 1 else ""
        names = [key for key in file.keys() if key.startswith(prefix)]  # noqa: SIM118 - it is no dictionary
        _restore_random({key.removeprefix(prefix): file.get_tensor(key) for key in names})


def load_moments(folder: Path, optimizer: AdamW, model: str = "") -> None:
    """Put the moments of one of the optimisers back. model: its name, as `save` was given it."""
    alone = folder / _alone(model)
    if (folder / INDEX).exists() and not alone.exists():
        _load_shards(folder, optimizer, _prefix(model))
    elif optimizer.sharded:
        _cut(load_file(alone), optimizer)
    else:
        optimizer.load_state(load_file(alone, device=str(optimizer.master.device)))


def _index(folder: Path) -> Index:
    return msgspec.json.decode((folder / INDEX).read_bytes(), type=Index)


def _alone(model: str) -> str:
    """The file of moments that one process writes."""
    return f"optimizer.{model}.safetensors" if model else "optimizer.safetensors"


def _prefix(model: str) -> str:
    """What the names of a model's moments begin with in the files of several."""
    return f"{model}/" if model else ""


def _file(rank: int) -> str:
    return f"rank-{rank:05d}-of-{distributed.size():05d}.safetensors"


def _rows(parameter: Tensor) -> int:
    return parameter.shape[0] if parameter.ndim else 1


def _save_piece(folder: Path, optimizers: Mapping[str, AdamW]) -> None:
    """Write this process's rows of all moments, durably: the first process publishes the folder."""
    tensors = {}
    for model, each in optimizers.items():
        for key, held in each.moments().items():
            rows = held if held.ndim else held.view(1)
            start, stop = (0, len(rows)) if each.sharded else distributed.my_rows(len(rows))
            tensors[_prefix(model) + key] = rows[start:stop].contiguous()
        tensors[_prefix(model) + UPDATES] = torch.tensor(each.updates)
    tensors |= {RANDOM + key: value for key, value in _random_state().items()}
    path = folder / _file(distributed.rank())
    save_tensors(tensors, path)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _load_shards(folder: Path, optimizer: AdamW, prefix: str) -> None:
    """Fill this process's moments from the files that hold their rows, under names that begin so."""
    index = _index(folder)
    files = [safe_open(folder / name, "pt") for name in index.files]
    for key, held in optimizer.moments().items():
        count = index.rows[prefix + key.partition("/")[2]]
        first, last = distributed.my_rows(count) if optimizer.sharded else (0, count)
        rows = held if held.ndim else held.view(1)
        for rank, file in enumerate(files):
            start, stop = distributed.rows_of(count, rank, len(files))
            low, high = max(first, start), min(last, stop)
            if low < high:
                piece = file.get_slice(prefix + key)[low - start : high - start]
                rows[low - first : high - first].copy_(piece)
    optimizer.set_updates(files[0].get_tensor(prefix + UPDATES).item())


def _cut(state: dict[str, Tensor], optimizer: AdamW) -> None:
    """Fill this process's pieces from the flat moments that one process has written."""
    whole = optimizer.views_of(state)
    for key, held in optimizer.moments().items():
        start, stop = distributed.my_rows(_rows(whole[key]))
        held.copy_(whole[key][start:stop])
    optimizer.set_updates(state["matrices.step"].item())


def _random_state() -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _restore_random(state: dict[str, Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
