"""How each kernel is cut for each chip: tile sizes, warps, pipeline stages. A table, no search while a model runs.

Chosen by offline compilation (no loop slowed by spilled registers, shared memory within the chip's) and from published
yardsticks; no entry has been timed on a card here. `python -m kernels.tune` times candidates on yours and writes a file
under the user's cache, which is asked first.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch


class Config(NamedTuple):
    """One way to cut a kernel."""

    block_m: int
    """Queries of a tile."""
    block_n: int
    """Keys of a tile."""
    warps: int
    stages: int
    """Tiles in flight in a loop."""


class Linear(NamedTuple):
    """One way to cut the kernels of linear + cross-entropy."""

    block_m: int
    """Tokens of a tile."""
    block_n: int
    """Words of a tile."""
    block_c: int
    """Columns of one product."""
    warps: int
    stages: int


KERNELS = ("forward", "backward_keys", "backward_queries", "decode")
WIDTHS = (32, 64, 96, 128, 192, 256)
"""Classes of head width: the least one that holds it. 40 counts as 64; 72, 80 and 96 as 96; 160 as 192."""
SHORT = 512
"""Up to this many keys a call counts as short."""
FAMILIES = {
    "sm_80": "sm_80", "sm_86": "sm_86", "sm_87": "sm_86", "sm_89": "sm_86", "sm_120": "sm_120", "sm_121": "sm_120",
    "sm_90": "sm_90", "sm_100": "sm_100", "sm_103": "sm_100",
    "gfx90a": "gfx942", "gfx942": "gfx942", "gfx950": "gfx942",
}  # fmt: skip
"""Chips that share their entries. Others take those of sm_86, which ask least of a chip."""

INTERPRETED = Config(64, 64, 4, 1)
"""In Triton's interpreter, where each operation on a tile costs the same whatever its size."""

INTERPRETED_LINEAR = Linear(64, 64, 64, 4, 1)

_forced: dict[str, Config] = {}
"""What tests and the tuner put in place of the table, by kernel."""
_forced_linear: dict[str, Linear] = {}
"""The same for linear + cross-entropy, under the name linear."""


def choose(
    kernel: str, arch: str, width: int, dtype: torch.dtype, causal: bool, length: int, plain: bool = True
) -> Config:
    """The configuration of `kernel` on `arch` (sm_90, gfx942 …) for heads of `width` and `length` keys.

    plain: a call without window, bias, key lengths and packed documents, of lengths that are multiples of 128.
    """
    if kernel in _forced:
        return _forced[kernel]
    if arch == "interpreter":
        return INTERPRETED
    return _choose(kernel, arch, width_class(width), dtype.itemsize, causal, length <= SHORT, plain)


@cache
def _choose(kernel: str, arch: str, width: int, itemsize: int, causal: bool, short: bool, plain: bool) -> Config:
    tuned = tuned_here(arch).get(key_of(kernel, width, itemsize, causal, short, plain))
    return tuned or shipped(kernel, arch, width, itemsize, causal, short, plain)


def choose_linear(kernel: str, arch: str, dtype: torch.dtype) -> Linear:
    """The configuration of loss_forward or loss_gradient on `arch`."""
    if "linear" in _forced_linear:
        return _forced_linear["linear"]
    if arch == "interpreter":
        return INTERPRETED_LINEAR
    return LINEAR[FAMILIES.get(arch, "sm_86"), dtype.itemsize][kernel == "loss_gradient"]


def shipped(
    kernel: str, arch: str, width: int, itemsize: int, causal: bool, short: bool = False, plain: bool = True
) -> Config:
    """The table's entry for a class of width."""
    rows = TABLE[FAMILIES.get(arch, "sm_86"), itemsize]
    row = rows[kernel] if plain else rows.get(f"{kernel}_any", rows[kernel])
    config = row[WIDTHS.index(width)]
    if short and kernel == "forward" and causal and width <= 64 and itemsize == 2 and config.block_m > 64:
        # A lower tile wastes less of a short triangle and makes twice as many programs to fill the chip with.
        return config._replace(block_m=64, block_n=64, warps=4, stages=min(config.stages, 2))
    return config


def width_class(width: int) -> int:
    """The least class that holds `width` columns."""
    return next(limit for limit in WIDTHS if width <= limit)


def pieces(width: int) -> tuple[int, int]:
    """The powers of two that hold a width: (64, 0) for 64, (64, 16) for 72 and 80, (64, 32) for 96."""
    first = 1 << (width.bit_length() - 1)
    rest = width - first
    return first, max(16, 1 << (rest - 1).bit_length()) if rest else 0


def arch_of(device: torch.device) -> str:
    """sm_90 and the like; "interpreter" for a CPU."""
    if device.type != "cuda":
        return "interpreter"
    if torch.version.hip:
        return str(torch.cuda.get_device_properties(device).gcnArchName).partition(":")[0]
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


def cache_folder() -> Path:
    """Where what was found out about this machine's cards is kept."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "workbench" / "kernels"


def key_of(kernel: str, width: int, itemsize: int, causal: bool, short: bool, plain: bool) -> str:
    """An entry's name in the tuner's file."""
    words = ("causal" if causal else "full", "short" if short else "long", "plain" if plain else "any")
    return " ".join((kernel, str(width), str(8 * itemsize), *words))


def tuned_file(arch: str) -> Path:
    """The tuner's file for chips of this architecture."""
    return cache_folder() / f"tuned-{arch}.json"


@cache
def tuned_here(arch: str) -> dict[str, Config]:
    """What the tuner wrote for this architecture, read once."""
    return read_tuned(tuned_file(arch))


def read_tuned(path: Path) -> dict[str, Config]:
    """A tuner's file; nothing when there is none or it is not one."""
    try:
        found = json.loads(path.read_text())
        return {key: Config(*map(int, value)) for key, value in found["configs"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _table(**rows: str) -> dict[str, list[Config]]:
    """One line a kernel, one entry a class of width: "128x64/8/3" is Config(128, 64, warps=8, stages=3)."""
    return {kernel: [_config(entry) for entry in line.split()] for kernel, line in rows.items()}


def _config(entry: str) -> Config:
    tile, warps, stages = entry.split("/")
    m, n = tile.split("x")
    return Config(int(m), int(n), int(warps), int(stages))


# Columns: width up to       32          64          96          128         192         256
TABLE: dict[tuple[str, int], dict[str, list[Config]]] = {
    ("sm_80", 2): _table(
        forward="             128x64/4/3  128x128/8/3 128x64/8/3  128x64/8/3  64x32/8/2   64x64/8/2",
        forward_any="         128x64/4/3  128x128/8/3 128x64/8/3  128x32/8/2  64x32/8/2   64x64/8/2",
        backward_keys="       64x64/4/2   64x128/8/2  16x64/8/1   64x64/8/2   16x32/8/1   32x32/8/1",
        backward_keys_any="   64x64/4/2   64x128/8/2  32x64/8/1   64x64/8/2   16x32/8/1   32x32/8/1",
        backward_queries="    64x64/4/2   128x64/8/2  128x64/8/2  128x64/8/2  64x32/8/1   64x64/8/1",
        backward_queries_any="64x64/4/2   128x64/8/2  64x64/8/2   64x64/8/2   64x32/8/1   64x64/8/1",
        decode="              16x64/4/3   16x64/4/3   16x64/4/3   16x64/4/2   16x32/4/2   16x32/4/2",
    ),
    ("sm_86", 2): _table(
        forward="             128x64/4/3  128x64/8/2  128x64/8/2  128x64/8/2  64x32/8/2   64x32/8/2",
        forward_any="         64x64/4/2   128x64/8/2  64x32/4/2   64x32/4/2   64x32/8/2   64x32/8/2",
        backward_keys="       64x64/4/2   64x128/8/2  32x64/8/1   64x64/8/2   16x32/8/1   32x32/8/1",
        backward_keys_any="   64x64/4/2   64x128/8/2  32x64/8/1   64x64/8/2   16x32/8/1   32x32/8/1",
        backward_queries="    64x64/4/2   128x64/8/2  128x64/8/2  128x64/8/2  64x32/8/1   64x32/8/1",
        backward_queries_any="64x64/4/2   128x64/8/2  64x64/8/2   64x64/8/2   64x32/8/1   64x32/8/1",
        decode="              16x64/4/3   16x64/4/3   16x64/4/2   16x64/4/2   16x32/4/2   16x32/4/2",
    ),
    ("sm_90", 2): _table(
        forward="             128x64/4/3  128x128/8/3 128x64/8/3  128x64/8/3  128x64/8/2  128x64/8/2",
        forward_any="         128x64/4/3  128x128/8/3 128x64/8/3  128x64/8/3  128x32/8/2  128x32/8/2",
        backward_keys="       64x64/4/2   64x128/8/2  64x64/8/2   64x64/8/2   16x32/8/1   32x32/8/1",
        backward_keys_any="   64x64/4/2   64x64/4/2   32x64/8/1   32x64/8/2   16x32/8/1   32x32/8/1",
        backward_queries="    128x64/8/2  128x64/8/2  128x64/8/2  128x64/8/2  64x32/8/2   32x64/8/1",
        backward_queries_any="128x64/8/2  128x64/8/2  128x64/8/2  128x64/8/2  64x32/8/2   32x64/8/1",
        decode="              16x64/4/3   16x64/4/3   16x64/4/3   16x64/4/3   16x32/4/3   16x32/4/3",
    ),
    ("sm_100", 2): _table(
        forward="             128x64/4/3  128x128/8/3 128x64/8/3  128x64/8/3  128x64/8/2  128x64/8/2",
        forward_any="         128x64/8/2  128x64/8/2  128x64/8/3  128x64/8/3  128x32/8/2  128x32/8/2",
        backward_keys="       64x64/4/2   64x128/8/2  64x64/8/2   64x64/8/1   32x64/8/1   32x64/8/1",
        backward_keys_any="   64x64/4/2   64x128/8/2  64x64/8/2   64x64/8/2   32x64/8/1   32x64/8/1",
        backward_queries="    128x64/8/2  128x64/8/2  128x64/8/2  128x64/8/2  64x64/8/1   64x64/8/1",
        backward_queries_any="128x64/8/2  128x64/8/2  128x64/8/2  128x64/8/2  64x64/8/1   64x64/8/1",
        decode="              16x64/4/3   16x64/4/3   16x64/4/3   16x64/4/3   16x32/4/3   16x32/4/3",
    ),
    ("gfx942", 2): _table(
        forward="             128x64/4/1  128x128/8/1 128x64/8/1  128x64/8/1  128x32/8/1  128x32/8/1",
        forward_any="         128x64/4/1  128x64/8/1  128x64/8/1  128x64/8/1  64x32/8/1   64x32/8/1",
        backward_keys="       64x64/4/1   64x64/4/1   32x64/8/1   32x64/8/1   32x32/4/1   32x32/4/1",
        backward_keys_any="   64x64/4/1   64x64/4/1   32x64/4/1   32x64/8/1   32x32/4/1   32x32/4/1",
        backward_queries="    64x64/4/1   128x64/8/1  64x64/8/1   64x32/8/1   32x32/4/1   32x32/4/1",
        backward_queries_any="64x64/4/1   128x64/8/1  64x64/4/1   64x32/8/1   32x32/4/1   32x32/4/1",
        decode="              16x64/4/1   16x64/4/1   16x64/4/1   16x64/4/1   16x32/4/1   16x32/4/1",
    ),
}  # fmt: skip
"""By family and bytes of an element. The rows called `any` are for calls that are not plain: ragged lengths, windows,
packed documents and biases take registers of their own."""

TABLE["sm_120", 2] = TABLE["sm_86", 2] | _table(
    forward="                 128x64/4/3  128x64/8/2  128x64/8/2  128x64/8/2  64x16/4/2   64x32/8/2",
    forward_any="             64x64/4/2   128x64/8/2  64x32/4/2   64x32/4/2   64x16/4/2   64x32/8/2",
    backward_keys="           64x64/4/2   64x128/8/2  16x64/8/1   64x64/8/2   16x32/8/1   32x32/8/1",
    backward_keys_any="       64x64/4/2   64x128/8/2  16x64/8/1   64x64/8/2   16x32/8/1   32x32/8/1",
    backward_queries="        64x64/4/2   128x64/8/2  128x64/8/2  128x64/8/2  64x16/8/1   64x32/8/1",
    backward_queries_any="    64x64/4/2   128x64/8/2  64x32/8/1   64x64/8/2   64x16/8/1   64x32/8/1",
)
"""As sm_86, but for heads of 72 to 96 and of 129 to 192, whose two pieces its compiler spills in loops at sm_86's
tiles."""

_SINGLE = _table(
    forward="                 32x32/4/1   32x32/4/1   32x32/4/1   32x32/8/1   32x16/8/1   32x16/8/1",
    forward_any="             32x32/4/1   32x32/4/1   32x32/8/1   32x32/8/1   32x16/8/1   32x16/8/1",
    backward_keys="           32x32/8/1   32x32/8/1   32x32/8/1   16x32/8/1   16x32/8/1   16x32/8/1",
    backward_keys_any="       32x32/8/1   32x32/8/1   16x32/8/1   16x32/8/1   16x16/8/1   16x16/8/1",
    backward_queries="        32x32/8/1   32x32/8/1   32x32/8/1   16x16/8/1   16x16/8/1   16x16/8/1",
    backward_queries_any="    32x32/8/1   32x32/8/1   32x16/8/1   16x16/8/1   16x16/8/1   16x16/8/1",
    decode="                  16x32/4/1   16x32/4/1   16x32/4/1   16x32/4/1   16x16/4/1   16x16/4/1",
)
"""fp32 in full precision runs on the ordinary units, whose registers hold both factors: small tiles on every chip."""
TABLE |= {(family, 4): _SINGLE for family in set(FAMILIES.values())}
TABLE["gfx942", 4] = _SINGLE | _table(
    backward_keys="           32x32/8/1   32x32/8/1   16x32/8/1   16x32/8/1   16x32/4/1   16x32/4/1",
    backward_keys_any="       32x32/8/1   32x32/8/1   16x32/8/1   16x32/8/1   16x32/4/1   16x32/4/1",
)
"""AMD's compiler spills in the loops of wide heads where NVIDIA's does not; half as many warps of 64 have the room."""

LINEAR: dict[tuple[str, int], tuple[Linear, Linear]] = {
    ("sm_80", 2): (Linear(128, 128, 32, 8, 4), Linear(128, 128, 32, 8, 4)),
    ("sm_86", 2): (Linear(128, 128, 32, 8, 4), Linear(128, 128, 32, 8, 4)),
    ("sm_120", 2): (Linear(128, 128, 32, 8, 4), Linear(128, 128, 32, 8, 4)),
    ("sm_90", 2): (Linear(128, 256, 64, 8, 3), Linear(128, 128, 64, 8, 4)),
    ("sm_100", 2): (Linear(128, 128, 64, 8, 4), Linear(128, 128, 64, 8, 4)),
    ("gfx942", 2): (Linear(128, 128, 32, 8, 1), Linear(128, 128, 32, 8, 1)),
} | {(family, 4): (Linear(64, 64, 16, 8, 2), Linear(64, 64, 16, 8, 2)) for family in set(FAMILIES.values())}
"""Linear + cross-entropy, by family and bytes of an element: the tiles of a plain matrix product, forward and
backward."""
