"""What this machine is doing: cores, memory, disk and GPUs, and what each run holds of them. For a thread; no torch."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import psutil

from stages.store.queue import waiting
from stages.store.workspace import Workspace
from workbench.board.run_board import Board, Entry

SCARCE = 0.05
"""Share of memory below which what is free is soon not enough."""
SCARCE_BYTES = 10**9
"""The same in bytes, on machines whose twentieth is more than anybody needs."""


class GpuProcess(NamedTuple):
    """A process that holds memory of a GPU."""

    pid: int
    memory: int
    """Bytes; 0 where the driver does not say."""


class Gpu(NamedTuple):
    """One GPU by its driver's account; None where the driver does not say."""

    name: str
    uuid: str
    used: int
    total: int
    utilisation: float | None
    """Share of the last second in which a kernel ran."""
    temperature: int | None
    """Degrees Celsius."""
    watts: float | None
    limit: float | None
    """Watts that it may draw."""
    processes: tuple[GpuProcess, ...] = ()


class GpuUser(NamedTuple):
    """Who holds memory of a GPU: a run with all its processes, or a process of somebody else."""

    name: str
    """Of the run, or the process; empty where the machine does not tell. Foreign text."""
    memory: int
    pid: int | None = None
    """None for a run."""


class Holder(NamedTuple):
    """A run at work or waiting, and what its processes hold."""

    entry: Entry
    cores: float
    memory: int
    gpu_memory: int
    place: int
    """How many runs are before it in its queue."""


class Reading(NamedTuple):
    """One look at the machine."""

    cpu: float
    """Share of all cores in use since the look before."""
    cores: int
    memory_used: int
    memory_total: int
    disk_free: int
    disk_total: int
    gpus: list[Gpu]
    holders: list[Holder]
    gpu_users: Sequence[Sequence[GpuUser]] = ()
    """Of each GPU, the largest first."""

    def scarce(self) -> str:
        """A sentence about memory that is about to run out; empty when there is enough."""
        return _scarcity(self.memory_total - self.memory_used, self.memory_total, self.gpus)


class Machine:
    """Looks at the machine again and again. Shares of time are since the look before, so the first are 0."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._board = Board(workspace)
        self._processes: dict[int, psutil.Process] = {}
        psutil.cpu_percent()

    def look(self) -> Reading:
        """How things stand now."""
        memory = psutil.virtual_memory()
        existing = next(folder for folder in (self._workspace.root, *self._workspace.root.parents) if folder.exists())
        disk = psutil.disk_usage(str(existing))
        gpus = read_gpus()
        families = [(entry, self._families(entry)) for entry in self._board.look() if entry.live]
        by_process = memory_by_process(gpus)
        owners = {process.pid: entry for entry, family in families for process in family}
        holders = [self._holder(entry, family, by_process) for entry, family in families]
        return Reading(
            cpu=psutil.cpu_percent() / 100,
            cores=psutil.cpu_count() or 1,
            memory_used=memory.total - memory.available,
            memory_total=memory.total,
            disk_free=disk.free,
            disk_total=disk.total,
            gpus=gpus,
            holders=sorted(holders, key=lambda one: one.place),
            gpu_users=[gpu_users(gpu, owners) for gpu in gpus],
        )

    def _holder(self, entry: Entry, family: list[psutil.Process], by_process: Mapping[int, int]) -> Holder:
        cores = memory = gpu_memory = 0.0
        for process in family:
            try:
                cores += process.cpu_percent() / 100
                memory += process.memory_info().rss
            except psutil.Error:
                continue
            gpu_memory += by_process.get(process.pid, 0)
        queues = [waiting(device) for device in entry.state.device.split(",") if device]
        place = max((queue.index(entry.run.id) for queue in queues if entry.run.id in queue), default=0)
        return Holder(entry, cores, int(memory), int(gpu_memory), place)

    def _families(self, entry: Entry) -> list[psutil.Process]:
        """The processes of a run: its worker, those that train with it here, and the children of each."""
        here = socket.gethostname()
        pids = {entry.state.pid, *(holder.pid for holder in entry.run.rank_holders() if holder.host == here)}
        found = {process.pid: process for pid in sorted(filter(None, pids)) for process in self._family(pid)}
        return list(found.values())

    def _family(self, pid: int | None) -> list[psutil.Process]:
        """A worker and its children. The same objects each time: they remember the CPU time of the look before."""
        if pid is None:
            return []
        try:
            worker = self._processes.setdefault(pid, psutil.Process(pid))
            children = worker.children(recursive=True)
        except psutil.Error:
            self._processes.pop(pid, None)
            return []
        return [worker, *(self._processes.setdefault(child.pid, child) for child in children)]


def scarcity() -> str:
    """The sentence of `Reading.scarce`, by a look at memory alone."""
    memory = psutil.virtual_memory()
    return _scarcity(memory.available, memory.total, read_gpus())


def _scarcity(free: int, total: int, gpus: list[Gpu]) -> str:
    places = [
        ("Memory", free, total),
        *((f"The memory of {gpu.name}", gpu.total - gpu.used, gpu.total) for gpu in gpus),
    ]
    for name, left, whole in places:
        if left < min(SCARCE * whole, SCARCE_BYTES):
            return f"{name} is nearly full: {left / 1e9:.1f} of {whole / 1e9:.0f} GB are free."
    return ""


def read_gpus() -> list[Gpu]:
    """The NVIDIA GPUs, each with the processes that hold its memory; none where there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    gpus = []
    for index in range(pynvml.nvmlDeviceGetCount()):
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        utilisation = _asked(pynvml.nvmlDeviceGetUtilizationRates, handle)
        watts = _asked(pynvml.nvmlDeviceGetPowerUsage, handle)
        limit = _asked(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle)
        gpus.append(
            Gpu(
                name=str(pynvml.nvmlDeviceGetName(handle)),
                uuid=str(pynvml.nvmlDeviceGetUUID(handle)),
                used=int(memory.used),
                total=int(memory.total),
                utilisation=utilisation.gpu / 100 if utilisation else None,
                temperature=_asked(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU),
                watts=watts / 1e3 if watts is not None else None,
                limit=limit / 1e3 if limit is not None else None,
                processes=_processes(handle),
            )
        )
    return gpus


def memory_by_process(gpus: Iterable[Gpu]) -> dict[int, int]:
    """Bytes of GPU memory that each process holds, of all GPUs together."""
    held: Counter[int] = Counter()
    for gpu in gpus:
        held.update({process.pid: process.memory for process in gpu.processes})
    return dict(held)


def gpu_users(gpu: Gpu, owners: Mapping[int, Entry]) -> list[GpuUser]:
    """Who holds the memory of a GPU, the largest first: runs, known by their processes, and others one by one."""
    runs: dict[str, GpuUser] = {}
    others = []
    for process in gpu.processes:
        entry = owners.get(process.pid)
        if entry is None:
            others.append(GpuUser(_name_of(process.pid), process.memory, process.pid))
            continue
        before = runs.get(entry.run.id, GpuUser(entry.spec.name, 0))
        runs[entry.run.id] = before._replace(memory=before.memory + process.memory)
    return sorted([*runs.values(), *others], key=lambda one: -one.memory)


def _name_of(pid: int) -> str:
    """The name of a process; empty where it is not to be seen from here, as from inside a container."""
    try:
        return str(psutil.Process(pid).name())
    except psutil.Error:
        return ""


def _processes(handle: Any) -> tuple[GpuProcess, ...]:
    """Those that compute on a GPU and those that draw with it; one that does both counts once."""
    import pynvml

    found: dict[int, int] = {}
    for question in (pynvml.nvmlDeviceGetComputeRunningProcesses, pynvml.nvmlDeviceGetGraphicsRunningProcesses):
        for process in _asked(question, handle) or []:
            found[process.pid] = max(found.get(process.pid, 0), int(process.usedGpuMemory or 0))
    return tuple(GpuProcess(pid, memory) for pid, memory in found.items())


def _asked(question: Any, *arguments: Any) -> Any:
    """What the driver answers; None where it does not serve the question."""
    import pynvml

    try:
        return question(*arguments)
    except pynvml.NVMLError:
        return None
