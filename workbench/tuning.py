"""What instruction tuning will cost, before it is started: from the checkpoint's files and the dataset's counts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from stages.store import strict
from stages.store.checkpoints import list_checkpoints, resolve_checkpoint
from stages.store.datasets import find_dataset, list_datasets
from stages.store.errors import UserError
from stages.store.rundir import list_runs
from stages.store.specs import TRAINING
from stages.store.specs.sft import SFT
from stages.store.workspace import Workspace

STANDING = 20
"""Bytes a parameter: fp32 masters, a gradient and its sum, two moments. bf16 halves two of them and adds a copy."""
BYTES_PER_TOKEN = 3.5
"""Of text; what is assumed of a tokenizer that has not seen this text."""
AROUND = 8
"""Tokens that a chat template puts around a turn, about."""
MAX_HEADER = 100_000_000


class TuningEstimate(NamedTuple):
    """A run by its figures. Tokens and steps are known only once the conversations are masked: these are guesses."""

    parameters: int
    standing: int
    """Bytes that are there throughout, activations left out: those are tried before the run."""
    context: int
    conversations: int
    tokens: int
    steps: int


def estimate_tuning(workspace: Workspace, values: Mapping[str, Any], dataset: str, checkpoint: str) -> TuningEstimate:
    """The figures of instruction tuning with these settings; UserError naming what stands in the way."""
    settings = strict.parse(SFT, values, "sft settings")
    info = find_dataset(workspace, dataset).info
    if info.kind != "chat":
        raise UserError(f"The dataset {dataset!r} holds records of kind {info.kind}.", "Choose one of kind chat.")
    folder = resolve_checkpoint(workspace, checkpoint).path
    context = context_of(folder)
    if settings.context and context and settings.context > context:
        raise UserError(f"The model sees {context:,} tokens, fewer than the context of {settings.context:,}.")
    room = settings.context or context or 1_024
    parameters = parameters_in(folder)
    conversations = info.records.get("train", 0)
    tokens = round(info.bytes.get("train", 0) / BYTES_PER_TOKEN) + 2 * AROUND * conversations
    rows = tokens / room if settings.packing else conversations
    return TuningEstimate(
        parameters=parameters,
        standing=STANDING * parameters,
        context=room,
        conversations=conversations,
        tokens=tokens,
        steps=settings.steps or max(1, math.ceil(settings.epochs * rows / settings.batch_size)),
    )


def parameters_in(folder: Path) -> int:
    """Parameters in the safetensors files of a model folder, read from their headers; 0 when they cannot be read."""
    total = 0
    try:
        for path in folder.glob("*.safetensors"):
            with path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(min(size, MAX_HEADER)))
            total += sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return 0
    return total


def context_of(folder: Path) -> int:
    """Tokens that the model of a folder sees at once; 0 when its config.json does not say."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
        found = next((config[key] for key in ("max_position_embeddings", "n_positions") if key in config), 0)
        return int(found)
    except (OSError, ValueError, TypeError, RecursionError):
        return 0


def tunable(workspace: Workspace) -> list[str]:
    """Names of checkpoints that tuning may begin from: training runs that have one, then imported models."""
    names = []
    for run in list_runs(workspace):
        try:
            spec = run.spec()
        except UserError:
            continue
        if spec.stage in TRAINING and list_checkpoints(run):
            names.append(spec.name)
    imported = sorted(path.parent.name for path in workspace.models.glob("*/config.json"))
    return list(dict.fromkeys([*names, *imported]))


def chats(workspace: Workspace) -> list[str]:
    """Names of the datasets of conversations, the newest first."""
    found = [dataset for dataset in list_datasets(workspace) if dataset.info.kind == "chat"]
    return [dataset.name for dataset in sorted(found, key=lambda dataset: -dataset.info.created)]
