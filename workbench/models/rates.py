"""How fast this machine trains: by the workspace's own runs that have ended well, else timed once and remembered."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psutil

from stages.store.errors import UserError
from stages.store.files import write_atomic
from stages.store.rundir import RunDir, list_runs
from stages.store.shape import shape_of_run
from stages.store.sizes import flops_per_token, parameter_count
from stages.store.workspace import Workspace, state_folder
from workbench.plots.figures import usual

VERB = "rate.of"
SPEED = "tokens_per_s"


class Machine(NamedTuple):
    """What there is to train on: the first GPU, or the CPU with all memory."""

    name: str
    memory: int
    """Bytes in all."""
    gpu: bool


class Rate(NamedTuple):
    """Floating-point operations a second while training, and where the figure is from."""

    flops: float
    parameters: int
    """Of the model that it was measured on; 0 where the machine was timed."""
    source: str
    """For people: `the run world-tiny`, `timed on this machine`."""
    tokens_per_s: float = 0.0
    """Of that model; 0 where the machine was timed."""


def this_machine() -> Machine:
    """The device that training takes here, by the driver's account; no torch is needed."""
    import pynvml

    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        found = Machine(
            str(pynvml.nvmlDeviceGetName(handle)), int(pynvml.nvmlDeviceGetMemoryInfo(handle).total), gpu=True
        )
        pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return Machine(f"{os.cpu_count()} CPU cores", psutil.virtual_memory().total, gpu=False)
    return found


def rates_of_runs(workspace: Workspace, machine: Machine) -> list[Rate]:
    """What the finished and stopped runs of this host that made a new model on such a device attained, one a run."""
    found = []
    for run in list_runs(workspace):
        try:
            rate = _rate_of(workspace, run, machine)
        except (UserError, OSError, ValueError):
            continue  # its tokenizer is gone, or another version wrote it: it tells nothing here
        if rate is not None:
            found.append(rate)
    return found


def _rate_of(workspace: Workspace, run: RunDir, machine: Machine) -> Rate | None:
    spec, state = run.spec(), run.state()
    if state.status not in ("finished", "stopped") or state.host != socket.gethostname():
        return None
    if not state.device or (state.device != "cpu") != machine.gpu or (config := shape_of_run(workspace, spec)) is None:
        return None
    speed = usual(run, SPEED)
    if not speed:
        return None
    return Rate(speed * flops_per_token(config), parameter_count(config).total, f"the run {spec.name}", speed)


def nearest_rate(rates: Sequence[Rate], parameters: int) -> Rate | None:
    """The rate of the run whose model is nearest in size: small models attain less."""
    return min(rates, key=lambda rate: abs(math.log(max(rate.parameters, 1) / parameters)), default=None)


def remembered(machine: Machine) -> Rate | None:
    """What was timed on this machine before, if its device is still the same."""
    try:
        found = msgspec.json.decode(_path().read_bytes(), type=dict[str, Any])
        if found.get("machine") == machine.name and float(found["flops"]) > 0:
            return _timed(found)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None


def remember(machine: Machine, measured: dict[str, Any]) -> Rate:
    """Keep what the desk has measured."""
    path = _path()
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {**measured, "machine": machine.name}
    write_atomic(path, msgspec.json.encode(found))
    return _timed(found)


def _timed(found: dict[str, Any]) -> Rate:
    return Rate(float(found["flops"]), 0, f"a few steps timed on this machine, in {found.get('precision', '?')}")


def _path() -> Path:
    return state_folder() / "rate.json"
