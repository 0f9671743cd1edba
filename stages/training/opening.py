"""Opening a run that trains: where it stands, its optimiser, and last of all its random numbers.

A stage calls `begin`, makes or loads its model as the checkpoint says, hands it to `Beginning.optimise`, tries what
needs trying, and calls `Opened.restore_random` just before its first step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stages.loop import Progress, find_resume, load_resume, read_progress
from stages.models.decoder import Decoder
from stages.models.opening import open_decoder
from stages.optim import AdamW
from stages.run import Run
from stages.store.architecture import ModelConfig
from stages.store.checkpoints import Checkpoint
from stages.store.sizes import training_memory
from stages.store.specs.pretrain import Pretrain
from stages.store.specs.tuning import Learning, Tuning
from stages.training import distributed
from stages.training.adapting import freeze_in
from stages.training.precision import Precision, choose_precision

LORA_LR = 4
"""Adapters take several times the rate of whole weights; published recipes go from two to ten times."""

M = TypeVar("M", bound=nn.Module)
P = TypeVar("P", bound=Progress)


class Opened(NamedTuple, Generic[M, P]):
    """A model to train, its optimiser, and the checkpoint that training goes on from, if it has begun before."""

    model: M
    optimizer: AdamW
    progress: P
    checkpoint: Checkpoint | None

    def metrics(self) -> dict[str, float]:
        """The latest validation, as the checkpoint has it; empty for a fresh start."""
        lineage = self.checkpoint.lineage() if self.checkpoint else None
        return dict(lineage.metrics) if lineage else {}

    def restore_random(self, seed: int) -> None:
        """Seed the random numbers, or put those of the checkpoint back with the moments: last before training."""
        distributed.seed(seed)
        if self.checkpoint:
            load_resume(self.checkpoint, self.optimizer)


@dataclass(frozen=True)
class Beginning(Generic[P]):
    """Where a run stands whose model is not open yet: at its start, or at its last checkpoint."""

    run: Run
    settings: Learning | Pretrain
    device: torch.device
    progress: P
    precision: Precision
    checkpoint: Checkpoint | None
    sharding: str = "ddp"
    """What each process is to hold: ddp all of the model, fsdp a piece."""

    @property
    def place(self) -> torch.device:
        """Where the model is to be loaded: the device, but for one that may not fit it whole."""
        return torch.device("cpu") if self.sharding == "fsdp" else self.device

    def fitting(self, config: ModelConfig, rows: int | None = None) -> Beginning[P]:
        """The same with what each process is to hold, as the settings say or the memory: `rows` at once in each.

        UserError when training would need more memory than is free. rows: None where a process that is alone finds out
        by trying; each of several then needs one. Adapters are small, and their base is held whole.
        """
        adapters = isinstance(self.settings, Tuning) and self.settings.method == "lora"
        if adapters or (rows is None and not distributed.several()):
            return self
        context = getattr(self.settings, "context", None)
        need = training_memory(config, rows or 1, context=context, dtype=self.precision.name)
        wanted = distributed.choose_sharding(self.settings.sharding, need.total, need.activations, self.device)
        return replace(self, sharding=wanted)

    def optimise(self, model: M, *, parameters: int, eps: float = 1e-8) -> Opened[M, P]:
        """The model with an optimiser over what of it is to learn; tells the run of both.

        parameters: to be told. eps: of AdamW.
        """
        if self.sharding == "fsdp":
            distributed.shard(model, self.device, self.precision.dtype)
        optimizer = AdamW(
            model,
            betas=(self.settings.beta1, self.settings.beta2),
            weight_decay=self.settings.weight_decay,
            eps=eps,
            compute_dtype=self.precision.dtype,
        )
        freeze_in(model, self.precision.dtype)
        self.run.event(
            "model",
            parameters=parameters,
            trained=sum(parameter.numel() for parameter in optimizer.parameters),
            device=self.device.type,
            precision=self.precision.name,
            why=self.precision.why,
            **distributed.event_fields(self.sharding),
        )
        return Opened(model, optimizer, self.progress, self.checkpoint)


def begin(run: Run, settings: Learning | Pretrain, device: torch.device, kind: type[P], *, lr: float) -> Beginning[P]:
    """Where the run stands. lr: the peak learning rate of a fresh start. kind: what progress.json holds."""
    checkpoint = find_resume(run)
    if checkpoint:
        progress = read_progress(checkpoint, kind)
    else:
        progress = kind(lr=lr, precision=choose_precision(settings.precision, device).name)
    return Beginning(run, settings, device, progress, choose_precision(progress.precision, device), checkpoint)


def open_frozen(folder: Path, dtype: torch.dtype, device: torch.device, beside: nn.Module) -> Decoder:
    """A decoder that does not learn, in evaluation mode; in pieces where the model beside it is."""
    model = open_decoder(folder, dtype, distributed.place_beside(beside, device)).requires_grad_(False).eval()
    distributed.shard_beside(beside, model, device, dtype)
    return model


def peak_lr(settings: Learning, width: int, *, times_width: float) -> float:
    """The peak learning rate in force: as asked, or what the stage takes times the width, over the width.

    The best rate falls as 1 / width: `stages.store.shape`, which says that of pre-training. Adapters take LORA_LR times
    as much.
    """
    adapters = isinstance(settings, Tuning) and settings.method == "lora"
    return settings.lr or times_width / width * (LORA_LR if adapters else 1)


def length_seen(lengths: NDArray[np.int64]) -> float:
    """Tokens that a token of these texts stands among, on average over the tokens (`stages.store.compute`)."""
    return float((lengths.astype(np.float64) ** 2).sum() / max(1, lengths.sum()))
