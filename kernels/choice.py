"""What the doors of this package share: the report of who serves what, and the switch for kernels that fail at work.

A kernel that passed its self-test may still fail on a call of another shape: its compiler gives up, or the chip has too
little memory for its tiles. It is then switched off for this process, one line says so, and PyTorch goes on.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, TypeVar

import torch

log = logging.getLogger("kernels")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether Triton's kernels run on the CPU, step by step, as their tests have it."""
PASSED = "fused kernels that passed their self-test on this card"
NO_GPU = "its kernels are for GPUs, and the call is not on one"


class BackendRow(NamedTuple):
    """One line of the report: which backend serves a kind of call, and why."""

    call: str
    device: str
    dtype: str
    backend: str
    why: str


class Served(NamedTuple):
    """What one kernel is compiled for: it works or fails for all calls that share this."""

    kernel: str
    """The name of the call in the report, such as attention_packed."""
    device: torch.device
    dtype: torch.dtype
    width: int
    """Columns of a head, of the hidden states …"""


NOT_THE_KERNELS = (torch.OutOfMemoryError, torch.AcceleratorError)
"""What PyTorch would fail with as well: no memory left for results, or a device that has stopped working."""

rows: dict[tuple[str, str, str, str], BackendRow] = {}
"""The report of this process, by what was decided: call, device, dtype, backend."""
_failed: dict[Served, str] = {}

Result = TypeVar("Result")


def record(call: str, device: torch.device, dtype: torch.dtype, backend: str, why: str) -> None:
    """Put a decision into the report."""
    name = str(dtype).removeprefix("torch.")
    rows[call, str(device), name, backend] = BackendRow(call, str(device), name, backend, why)


def by_environment(variable: str, name: str, why: str, unfit: Callable[[str], str]) -> tuple[str, str]:
    """The backend that an environment variable names in place of `name`, and why; `unfit` says why it cannot serve."""
    asked = os.environ.get(variable, "")
    if not asked or asked == name:
        return name, why
    if reason := unfit(asked):
        say_once(f"{variable}={asked} is passed over: {reason}.")
        return name, why
    return asked, f"named by {variable}"


def unfit(asked: str, backends: tuple[str, ...], obstacle: str) -> str:
    """Why a backend cannot be had by name: there is none, or an obstacle for Triton; empty when it can."""
    if asked not in backends:
        return f"there is none of that name (there are {', '.join(backends)})"
    return obstacle if asked == "triton" else ""


def not_triton(what: str, variable: str, device: torch.device, why: str, obstacle: str) -> str:
    """`why` with what keeps Triton from a call on a GPU, which one line says unless another backend was asked for."""
    if not obstacle or device.type != "cuda":
        return why
    if os.environ.get(variable, "triton") in ("", "triton"):
        say_once(f"{what} goes through PyTorch rather than Triton: {obstacle}.")
    return f"{why}; not triton: {obstacle}"


def failure(served: Served) -> str:
    """Why this kernel is switched off in this process; empty when it is not."""
    return _failed.get(served, "")


def guarded(served: Served, kernel: Callable[[], Result], otherwise: Callable[[], Result]) -> Result:
    """What `kernel` returns; where it fails, it is switched off with one logged line and `otherwise` is asked."""
    if served not in _failed:
        try:
            return kernel()
        except NOT_THE_KERNELS:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a compiler or a driver raises
            what = next(iter(f"{type(error).__name__}: {error}".splitlines()))[:300]
            _failed[served] = f"it failed at work ({what})"
            where = f"{str(served.dtype).removeprefix('torch.')} of {served.width} columns"
            say_once(f"The fused {served.kernel} for {where} is switched off and PyTorch goes on: {what}.")
    return otherwise()


@lru_cache
def say_once(message: str) -> None:
    """Log a warning the first time it is said in this process."""
    log.warning(message)
