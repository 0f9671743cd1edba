"""A model cut into pieces, one a process, by FSDP2: what `stages.training.distributed` says of fsdp.

Apart, because what it imports takes half a second that a process which is alone need not spend.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Shard

from stages.training.distributed import SHARDED, own, size

COMPUTING = ("hidden_states", "hidden_states_after", "keys_of")
"""Methods of models and their blocks that compute, beside `forward`: weights are gathered for them as well."""


def shard(model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Cut a model, the same in every process, into a piece for each; it then computes in `dtype`, from fp32 pieces.

    Each block of its lists is gathered by itself, all else together. The model may lie in the CPU's memory: a GPU is
    given a block at a time.
    """
    warnings.filterwarnings("ignore", "FSDP2-wrapped module")  # what a block returns is never written to in place
    mesh = init_device_mesh(device.type, (size(),))
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    blocks = [block for part in model.modules() if isinstance(part, nn.ModuleList) for block in part]
    for part in (*blocks, model):
        fully_shard(part, mesh=mesh, mp_policy=policy)
        for name in COMPUTING:
            if hasattr(part, name):
                register_fsdp_forward_method(part, name)
    for cut in _cut_parts(model):
        cut.set_gradient_divide_factor(1.0)  # the losses are shares already: gradients are added, not averaged
        cut.set_force_sum_reduction_for_comms(True)  # gloo cannot divide while it adds
    setattr(model, SHARDED, True)


@contextlib.contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """While this lasts every process holds all of a model at once, in the precision that it computes in."""
    parts = _cut_parts(model)
    setattr(model, SHARDED, False)
    for part in parts:
        part.unshard()
        part.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(part is not model, recurse=False)
            part.reshard()
        setattr(model, SHARDED, True)


@contextlib.contextmanager
def gathered(model: nn.Module, pieces: Mapping[str, Tensor], *, keep: bool) -> Iterator[None]:
    """While this lasts the model of the process that keeps them has whole parameters, gathered one after the other.

    pieces: by a parameter's name what to gather instead of its own piece. All processes must come.
    """
    for part in _cut_parts(model):
        part.reshard()  # after a validation, what no block holds is still there whole
    cut = {name: parameter for name, parameter in model.named_parameters() if isinstance(parameter, DTensor)}
    for name, parameter in cut.items():
        like = DTensor.from_local(
            pieces.get(name, own(parameter)).detach(),
            parameter.device_mesh,
            [Shard(0)],
            run_check=False,
            shape=parameter.shape,
            stride=parameter.stride(),
        )
        full = like.full_tensor()
        if keep:
            _place(model, name, nn.Parameter(full, requires_grad=False))
    try:
        yield
    finally:
        if keep:
            for name, parameter in cut.items():
                _place(model, name, parameter)


def _cut_parts(model: nn.Module) -> list[FSDPModule]:
    """What is gathered by itself: the blocks, and the model with all else."""
    return [part for part in model.modules() if isinstance(part, FSDPModule)]


def _place(model: nn.Module, name: str, parameter: Any) -> None:
    path, _, last = name.rpartition(".")
    model.get_submodule(path)._parameters[last] = parameter
