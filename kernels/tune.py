"""Time the ways to cut the attention kernels on this card, and remember the fastest.

    python -m kernels.tune [--width 64 128] [--dtype bfloat16]

What it finds goes into a file under the user's cache, which `kernels.configs` asks before its own table. Candidates
that do not compile, do not fit the chip or give wrong numbers are passed over.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from kernels import configs, sdpa
from kernels.configs import Config

CANDIDATES = [
    Config(m, n, warps, stages)
    for m, n, warps, stages in product((32, 64, 128), (32, 64, 128), (4, 8), (1, 2, 3))
    if m * n <= 128 * 128
]
LENGTHS = {True: 512, False: 4096}
"""Tokens by whether a call counts as short."""
WORK = 16384
"""Tokens of a batch."""
WRONG = 0.05
"""Relative difference from SDPA above which a candidate is not to be trusted."""

Clock = Callable[[Callable[[], object]], float]


def tune(
    device: torch.device, widths: list[int], dtype: torch.dtype, clock: Clock
) -> Iterator[tuple[str, Config, float]]:
    """For each kind of plain call the fastest configuration and its time in `clock`'s unit."""
    for width, causal, short in product(widths, (True, False), (True, False)):
        T = LENGTHS[short]
        shape = (max(1, WORK // T), max(1, 2048 // width), T, width)
        tensors = [torch.randn(shape, device=device).to(dtype) for _ in range(3)]
        for kernel in ("forward", "backward_keys", "backward_queries"):
            best = fastest(kernel, tensors, causal, clock)
            if best is not None:
                limit = configs.width_class(width)
                yield configs.key_of(kernel, limit, dtype.itemsize, causal, short, True), *best


def fastest(kernel: str, tensors: list[Tensor], causal: bool, clock: Clock) -> tuple[Config, float] | None:
    """The candidate with the least time for one kernel, the others being cut as the table says."""
    found: list[tuple[float, Config]] = []
    truth = _run(sdpa.attention, tensors, causal)
    from kernels import triton_backend

    for candidate in CANDIDATES:
        configs._forced[kernel] = candidate
        try:
            ours = _run(triton_backend.attention, tensors, causal)
            if all(_close(a, b) for a, b in zip(ours, truth, strict=True)):
                found.append((clock(lambda: _run(triton_backend.attention, tensors, causal)), candidate))
        except Exception as error:  # noqa: BLE001 - too large for the chip, or more than its compiler can do
            print(f"  {kernel} {tuple(candidate)}: {str(error).splitlines()[0][:100]}", file=sys.stderr)
        finally:
            del configs._forced[kernel]
    if not found:
        return None
    time, config = min(found)
    return config, time


def _run(attention: Callable[..., Tensor], tensors: list[Tensor], causal: bool) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in tensors]
    out = attention(*leaves, causal=causal)
    return [out.detach(), *torch.autograd.grad(out, leaves, torch.ones_like(out))]


def _close(ours: Tensor, theirs: Tensor) -> bool:
    return bool((ours - theirs).float().norm() <= WRONG * theirs.float().norm())


def write(path: Path, found: dict[str, Config]) -> None:
    """Add to the file what was found; a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(f".{os.getpid()}")
    fresh.write_text(json.dumps({"configs": configs.read_tuned(path) | found}, indent=1))
    fresh.replace(path)


def main() -> int:
    """The command. Exit code 1 without a GPU."""
    parser = argparse.ArgumentParser(prog="python -m kernels.tune", description="Tune the attention kernels.")
    parser.add_argument("--width", type=int, nargs="+", default=[64, 128], help="head widths (default: 64 128)")
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16")
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        print("There is no GPU that torch can use, so there is nothing to tune.")
        return 1
    from triton.testing import do_bench

    device = torch.device("cuda")
    path = configs.tuned_file(configs.arch_of(device))
    for key, config, time in tune(device, asked.width, getattr(torch, asked.dtype), do_bench):
        print(f"{key}: {tuple(config)}, {time:.3f} ms forward and backward", flush=True)
        write(path, {key: config})
    print(f"Written to {path}; delete it to go back to the table.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
