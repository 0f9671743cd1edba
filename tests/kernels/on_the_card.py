"""Every case that the Triton kernels must get right, on this machine's GPU, in the bounds that hold in the interpreter.

    python -m tests.kernels.on_the_card [GROUP …]          a line a group; exit code 1 where something is wrong

Needs torch, triton and numpy. `python -m pytest -m gpu tests/kernels` does the same, and tries whole models beside.
TRITON_INTERPRET=1 has the interpreter in the GPU's place.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial

import torch

from tests.kernels.groups import GROUPS, GroupFailed, measure, wrong
from tests.kernels.outcome import Outcome

TOGETHER = 8
"""Processes at a time, at most: nearly all of their time goes into compiling."""
PLACES = [(module, group) for module, groups in GROUPS.items() for group in groups]
NO_GPU = "There is no GPU that torch can use, so there is nothing to try; TRITON_INTERPRET=1 tries the interpreter."


def verdict(module: str, group: str, run: Callable[[], list[Outcome]]) -> tuple[bool, str]:
    """Whether a group is right, and its line: how many cases, the largest error in each precision, what is wrong."""
    start, name = time.monotonic(), f"{module.removesuffix('_cases')} {group}"
    try:
        outcomes = run()
    except GroupFailed as failed:
        return False, f"{name}: FAILED: {str(failed).strip().splitlines()[-1][:300]}"
    if len(outcomes) < GROUPS[module][group]:
        return False, f"{name}: FAILED: {len(outcomes)} of {GROUPS[module][group]} cases were tried"
    faults = wrong(outcomes, module)
    worst = [max((max(o.ours) for o in outcomes if o.half is half), default=0.0) for half in (True, False)]
    line = f"{name}: {len(outcomes)} cases, {len(faults)} wrong, errors up to {worst[0]:.1e} in half precision"
    line += f" and {worst[1]:.1e} in fp32, {time.monotonic() - start:.0f} s"
    return not faults, "\n".join([line, *(f"    {case}: {'; '.join(found)}" for case, found in faults.items())])


def main() -> int:
    """The command. Exit code 1 without a GPU, or where something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.kernels.on_the_card", description="Try the Triton kernels.")
    names = sorted({group for _, group in PLACES})
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"default: all of {', '.join(names)}")
    asked = parser.parse_args()
    if unknown := set(asked.groups) - set(names):
        parser.error(f"there is no group {', '.join(sorted(unknown))} (there are {', '.join(names)})")
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if not interpreted and not torch.cuda.is_available():
        print(NO_GPU)
        return 1
    print("the interpreter" if interpreted else torch.cuda.get_device_name(), flush=True)
    right = True
    with ThreadPoolExecutor(min(TOGETHER, os.cpu_count() or 1)) as pool:
        running = [
            pool.submit(verdict, module, group, partial(measure, group, module, not interpreted))
            for module, group in PLACES
            if not asked.groups or group in asked.groups
        ]
        for done in as_completed(running):
            passed, line = done.result()
            right = right and passed
            print(line, flush=True)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
