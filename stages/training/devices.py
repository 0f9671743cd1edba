"""Which device a run uses, found without importing torch: the queue is joined before that."""

from __future__ import annotations

import os
from typing import Literal, NamedTuple

import psutil
import pynvml

from stages.store.errors import UserError
from stages.store.queue import waiting


class Device(NamedTuple):
    kind: Literal["cpu", "cuda"]
    queue: str
    """Name of its queue: the GPU's UUID, or cpu."""
    name: str


BUSY_INTERVAL, BUSY_CORES = 0.2, 0.5
"""Seconds to watch the cores for, and how many in use count as busy."""

CPU = Device("cpu", "cpu", "CPU")


def visible_gpus() -> list[Device]:
    """NVIDIA GPUs that this process may use, in the driver's order; empty where there is no driver."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        found = [
            Device("cuda", str(pynvml.nvmlDeviceGetUUID(handle)), str(pynvml.nvmlDeviceGetName(handle)))
            for handle in handles
        ]
    finally:
        pynvml.nvmlShutdown()
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return found
    wanted = [part.strip() for part in chosen.split(",") if part.strip()]
    return [gpu for index, gpu in enumerate(found) if str(index) in wanted or gpu.queue in wanted]


def choose_device(setting: str) -> Device:
    """The device that `setting` (auto, cpu or cuda) means: of several GPUs the one with the shortest queue."""
    return choose_devices(setting, 1)[0]


def choose_devices(setting: str, processes: int) -> list[Device]:
    """A GPU for each of several processes, those with the shortest queues; or the CPU alone, which all share.

    Raises UserError when this machine has GPUs, but too few.
    """
    gpus = [] if setting == "cpu" else visible_gpus()
    if setting == "cuda" and not gpus:
        raise UserError("This machine has no NVIDIA GPU that can be used.", "Set device to cpu or auto.")
    if gpus and len(gpus) < processes:
        has = "one GPU that can be used" if len(gpus) == 1 else f"{len(gpus)} GPUs that can be used"
        raise UserError(
            f"{processes} processes need {processes} GPUs, and this machine has {has}.",
            f"Set gpus to {len(gpus)} or fewer; with device = cpu, processes share the cores.",
        )
    return sorted(gpus, key=lambda gpu: len(waiting(gpu.queue)))[:processes] or [CPU]


def confine_to(*devices: Device) -> None:
    """Make torch, imported later, see these devices alone."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(device.queue for device in devices if device.kind == "cuda")


def spare_busy_cores() -> None:
    """Let torch's threads sleep while they wait for each other if other programs are using the cores.

    Threads wait by spinning otherwise: that is 1.5 times as fast on an idle machine, and was measured 4 times slower
    on one with another busy process. The results are the same bits. Call it before torch is imported.
    """
    busy_cores = psutil.cpu_percent(BUSY_INTERVAL) / 100 * (psutil.cpu_count() or 1)
    if busy_cores > BUSY_CORES:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
