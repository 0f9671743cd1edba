"""What this machine can do, as JSON on stdout: `python -P -m stages.machine`. For `workbench doctor`, which may not
import torch itself.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import psutil
import pynvml

TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2}
"""Largest difference from the float32 reference that the self-test lets pass."""


def main() -> int:
    """Print the facts; what could not be found out stands under `error` of its part."""
    facts = {
        "memory": psutil.virtual_memory()._asdict(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpus": _guarded(gpus),
        "torch": _guarded(torch_facts),
        "triton": _guarded(lambda: {"version": importlib.metadata.version("triton")}),
        "precision": _guarded(precision),
        "attention": _guarded(attention),
    }
    sys.stdout.buffer.write(msgspec.json.encode(facts) + b"\n")
    return 0


def gpus() -> dict[str, Any]:
    """NVIDIA GPUs by the driver's own account: driver version, and name, UUID and bytes of memory of each."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return {"driver": None, "why": str(error), "devices": []}
    try:
        devices = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            name, uuid = pynvml.nvmlDeviceGetName(handle), pynvml.nvmlDeviceGetUUID(handle)
            devices.append({"name": name, "uuid": uuid, "total": memory.total, "free": memory.free})
        return {"driver": pynvml.nvmlSystemGetDriverVersion(), "devices": devices}
    finally:
        pynvml.nvmlShutdown()


def torch_facts() -> dict[str, Any]:
    """torch's version, whether it can use a GPU, and by what several processes can talk to each other."""
    import torch
    import torch.distributed as between

    return {
        "version": str(torch.__version__),
        "cuda": torch.version.cuda,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "gloo": between.is_available() and between.is_gloo_available(),
        "nccl": between.is_available() and between.is_nccl_available(),
    }


def precision() -> dict[str, Any]:
    """What `precision = "auto"` means here."""
    import torch

    from stages.training.precision import choose_precision

    chosen = choose_precision("auto", torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    return {"name": chosen.name, "why": chosen.why}


def attention() -> dict[str, Any]:
    """Which backend serves which kind of call and why, how far each is from the reference, and how the fused kernels
    did on this card, where there is one."""
    from kernels import backend_report

    trials = kernel_trials()
    rows = [*(row._asdict() for row in backend_report()), generation()]
    return {"rows": rows, "tests": self_test(), "trials": trials}


def generation() -> dict[str, str]:
    """Whether compiled code generates on this machine's CPU, and why, in the form of the other backends."""
    from stages.models.compiled import here

    code, why = here()
    name = "plain" if code is None else "compiled"
    return {"call": "generation", "device": "cpu", "dtype": "float32", "backend": name, "why": why}


def kernel_trials() -> list[dict[str, Any]]:
    """The fused kernels' self-test on the GPU, made now or remembered; nothing without a GPU or without Triton."""
    import torch

    if not torch.cuda.is_available() or importlib.util.find_spec("triton") is None:
        return []
    from kernels import selftest

    trials = selftest.report(torch.device("cuda"))
    return [trial._asdict() | {"error": f"{trial.error:.1e}", "why": trial.sentence} for trial in trials]


def self_test() -> list[dict[str, Any]]:
    """Causal attention and its gradient through the door against the reference in float32, on every kind of device."""
    import torch

    from kernels import attention as through_door
    from kernels.reference import attention as reference

    found = []
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        for dtype in (torch.float32, torch.bfloat16):
            inputs = _inputs(torch.Generator().manual_seed(0))
            wanted = _with_gradients(reference, [x.clone() for x in inputs])
            got = _with_gradients(through_door, [x.to(device, dtype) for x in inputs])
            off = max(float((a.float().cpu() - b).abs().max()) for a, b in zip(got, wanted, strict=True))
            name = str(dtype).removeprefix("torch.")
            found.append({"device": device, "dtype": name, "difference": off, "passed": off <= TOLERANCE[name]})
    return found


def _inputs(generator: Any) -> list[Any]:
    """q, k and v of shape (2, 4, 64, 32)."""
    import torch

    return [torch.randn(2, 4, 64, 32, generator=generator) for _ in range(3)]


def _with_gradients(attention: Callable[..., Any], inputs: list[Any]) -> list[Any]:
    """The output and the gradients of its sum of squares by q, k and v; these over 10, as large as the output then."""
    leaves = [x.requires_grad_() for x in inputs]
    y = attention(*leaves, causal=True)
    (y.float() ** 2).sum().backward()
    return [y.detach(), *(leaf.grad / 10 for leaf in leaves)]


def _guarded(find: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return find()
    except Exception as error:  # noqa: BLE001 - a broken library is a finding here, whatever it raises
        return {"error": f"{type(error).__name__}: {error}"[:500]}


if __name__ == "__main__":
    sys.exit(main())
