"""Several processes that train one model: the verbs of torch.distributed that a training loop uses.

Each process computes the loss of its share of a step's batch, divided by what the whole batch counts. So the gradient
of the step is the sum over the processes, and is that of one process with the same batch. Two ways to hold the model:

    ddp    every process has all of it, and the gradients are added up once a step, in the one buffer they lie in.
           Source: Li et al., PyTorch Distributed (arXiv 2006.15704), without overlap.
    fsdp   weights, gradients and moments are cut along their first dimension, a piece a process; a block's weights are
           gathered while it computes (`stages.training.sharding`). Source: Zhao et al. (arXiv 2304.11277).

In a process that is alone every verb does nothing at no cost.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import psutil
import torch
import torch.distributed as dist
from torch import Tensor, nn

from stages.run import Requests
from stages.store.errors import UserError, WorkFailed
from stages.store.files import write_atomic
from stages.training.ranks import Rank

WAIT = datetime.timedelta(days=1)
"""How long a process waits for the others, while one samples or writes a large checkpoint. That one has died is noticed
by `stages.training.supervisor`, not by waiting."""
SHARDED = "sharded_here"
"""Attribute of a model of which each process holds a piece."""
MEETING = 300.0
"""Seconds in which all processes must have come."""

T = TypeVar("T")


class Meeting(msgspec.Struct):
    """rendezvous-<attempt>.json: where the first process is found."""

    host: str
    port: int


def join(me: Rank, folder: Path, device: torch.device) -> None:
    """Meet the other processes of the run, whose folder all of them see. Nothing where there are none."""
    if me.size == 1:
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    store = None if "TORCHELASTIC_RUN_ID" in os.environ else _meet(me, folder / f"rendezvous-{me.attempt}.json")
    dist.init_process_group(backend, rank=me.rank, world_size=me.size, store=store, timeout=WAIT)


def _meet(me: Rank, place: Path) -> dist.TCPStore:
    """A store that the first process serves, and that others find by a file: for starters other than torchrun."""
    here = socket.gethostname()
    if me.leads:
        store = dist.TCPStore("0.0.0.0", 0, me.size, is_master=True, timeout=WAIT, wait_for_workers=False)
        write_atomic(place, msgspec.json.encode(Meeting(here, store.port)))
        return store
    deadline = time.monotonic() + MEETING
    while not place.exists():
        if time.monotonic() > deadline:
            raise WorkFailed("The first process of the run did not come.", f"Do all machines see {place.parent}?")
        time.sleep(0.05)
    found = msgspec.json.decode(place.read_bytes(), type=Meeting)
    host = "localhost" if found.host == here else found.host
    return dist.TCPStore(host, found.port, me.size, is_master=False, timeout=WAIT)


def several() -> bool:
    """Whether other processes train the same model."""
    return dist.is_initialized()


def leads() -> bool:
    """Whether this process is the one that writes the run's files."""
    return rank() == 0


def rank() -> int:
    """Which of the processes this one is, from 0."""
    return dist.get_rank() if several() else 0


def size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if several() else 1


def share(count: int) -> range:
    """Which of `count` rows are this process's: all of them where it is alone, perhaps none where they are few.

    Shares differ by one row at most.
    """
    if not several():
        return range(count)
    return range(rank() * count // size(), (rank() + 1) * count // size())


def seed(number: int) -> None:
    """Seed the random numbers (dropout, masks): the processes draw different ones."""
    torch.manual_seed(number + rank())


def all_reduce_sum(tensor: Tensor) -> None:
    """Replace a tensor by its sum over the processes, the same bits in all of them."""
    if several():
        dist.all_reduce(tensor)


def total(*values: float) -> list[float]:
    """Sums of numbers over the processes, the same bits in all of them."""
    if not several():
        return list(values)
    sums = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(sums)
    return sums.tolist()


def all_gather(tensor: Tensor, dimension: int) -> Tensor:
    """The processes' tensors, of one shape, one after the other along a dimension."""
    if not several():
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(size())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts, dimension)


def all_gather_list(values: Sequence[T]) -> list[T]:
    """The processes' lists, which may differ in length, one after the other: for small things that are no tensors."""
    if not several():
        return list(values)
    lists: list[list[T]] = [[] for _ in range(size())]
    dist.all_gather_object(lists, list(values))
    return [value for each in lists for value in each]


def all_reduce_min(value: int) -> int:
    """The smallest of the processes' numbers."""
    if not several():
        return value
    found = torch.tensor(value)
    dist.all_reduce(found, dist.ReduceOp.MIN)
    return int(found)


def broadcast_object(value: Any) -> Any:
    """What the first process holds, in all of them."""
    if not several():
        return value
    held = [value]
    dist.broadcast_object_list(held, src=0, device=torch.device("cpu"))
    return held[0]


def broadcast(tensor: Tensor) -> None:
    """Give every process the first one's tensor."""
    if several():
        dist.broadcast(tensor, src=0)


def agree(requests: Requests) -> None:
    """Let every process have been asked what the first has been asked, so that all act at the same step."""
    if not several():
        return
    asked = torch.tensor(int(leads() and requests.any()))
    dist.broadcast(asked, src=0)
    if asked:
        requests.take_over(broadcast_object(requests.shown()))


def choose_sharding(setting: str, need: int, activations: int, device: torch.device) -> str:
    """What each process is to hold: ddp, or fsdp where ddp does not fit and several are to choose.

    need: bytes of a training step with the whole model; activations: those of them that are never cut. Raises UserError
    when fewer are free for this process.
    """
    free = free_memory(device)
    needs = {"ddp": need, "fsdp": activations + (need - activations) // size()}
    fitting = "fsdp" if several() and needs["ddp"] > free else "ddp"
    chosen: str = broadcast_object(fitting if setting == "auto" else setting)
    if not several():
        chosen = "ddp"
    if needs[chosen] > free:
        raise UserError(
            f"Training this model needs about {needs[chosen] / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are free.",
            "Choose a smaller preset, micro_batch or context.",
        )
    return chosen


def free_memory(device: torch.device) -> int:
    """Bytes that are free for this process. The processes of a machine share the memory of its CPU."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available) // int(os.environ.get("LOCAL_WORLD_SIZE", size()))


def event_fields(sharding: str) -> dict[str, Any]:
    """What a run's event says of its processes; nothing of one."""
    return {"processes": size(), "sharding": sharding} if several() else {}


def shard(model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Give each process its piece of a model that is the same in all of them, which then computes in `dtype`."""
    from stages.training.sharding import shard

    shard(model, device, dtype)


def shard_beside(other: nn.Module | None, model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """The same of a model, which `place_beside` has placed, where another is cut."""
    if sharded(other):
        shard(model, device, dtype)


def place_beside(other: nn.Module | None, device: torch.device) -> torch.device:
    """Where a model is to be loaded: the device, but for one that may not fit it whole, where another is cut."""
    return torch.device("cpu") if sharded(other) else device


def sharded(model: nn.Module | None) -> bool:
    """Whether each process holds a piece of the model."""
    return getattr(model, SHARDED, False)


def own(parameter: Tensor) -> Tensor:
    """The piece of a parameter or gradient that this process holds: all of it unless the model is cut."""
    piece: Tensor = parameter.to_local() if hasattr(parameter, "to_local") else parameter
    return piece


def rows_of(count: int, number: int, processes: int) -> tuple[int, int]:
    """From which to before which row a process holds a parameter of `count` rows, as `fully_shard` cuts them."""
    each = -(-count // processes)
    return min(number * each, count), min((number + 1) * each, count)


def my_rows(count: int) -> tuple[int, int]:
    """The same of this process."""
    return rows_of(count, rank(), size())


@contextlib.contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """While this lasts every process has the whole model, as it computes, and may use it alone or not at all.

    It must not learn meanwhile. All processes must come here. Does nothing to a model that is not cut.
    """
    if not sharded(model):
        yield
        return
    from stages.training.sharding import whole

    with whole(model):
        yield


@contextlib.contextmanager
def whole_in_first(model: nn.Module, pieces: Mapping[str, Tensor]) -> Iterator[None]:
    """While this lasts the first process has the whole of a model that is cut, to write it.

    pieces: by a parameter's name what to gather instead of its own piece, such as its fp32 master. All must come here.
    """
    from stages.training.sharding import gathered

    with gathered(model, pieces, keep=leads()):
        yield


@contextlib.contextmanager
def first_alone() -> Iterator[None]:
    """Let the first process do something before the others do it: they find the file that it has made."""
    if not leads():
        barrier()
    yield
    if leads():
        barrier()


def barrier() -> None:
    """Wait for the others, on the CPU."""
    total(0.0)


def leave() -> None:
    """Part from the others, when all have come to the end of the work."""
    barrier()
    dist.destroy_process_group()
