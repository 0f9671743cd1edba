"""What it will cost to go on from a checkpoint, before it is started: by the checkpoint's files and the dataset's
counts; and what there is to go on from."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from stages.store import strict
from stages.store.checkpoints import list_checkpoints, resolve_checkpoint
from stages.store.datasets import Dataset, find_dataset, list_datasets
from stages.store.errors import UserError
from stages.store.models import list_models
from stages.store.rundir import list_runs
from stages.store.sources import HELD_OUT
from stages.store.specs import spec_of
from stages.store.specs.parents import KINDS, LANGUAGE_MODELS
from stages.store.workspace import Workspace
from workbench.models.known_tokens import TokenCount, tokens_for

STANDING = 20
"""Bytes a trained parameter: fp32 masters, a gradient and its sum, two moments. bf16 halves two and adds a copy."""
FROZEN = 4
"""Bytes a parameter beside adapters; bf16 halves them."""
FROM_SFT = ("reward", "dpo", "grpo", "ppo")
"""Stages that go on from an instruction-tuned model."""
MADE_BY = {"reward": "reward", "labels": "classify"}
"""By the head of an imported model: the stage that makes such a one here."""
IN_BLOCK = re.compile(r"\.\d+\.")
"""What names of tensors in a numbered block have in common: `h.0.attn`, `model.layers.11.mlp`."""
MAX_HEADER = 100_000_000


class TuningEstimate(NamedTuple):
    """A run by its figures. Where the records were never in tokens, tokens and steps are guesses."""

    parameters: int
    standing: int
    """Bytes that are there throughout, activations left out: those are tried before the run."""
    context: int
    records: int
    tokens: TokenCount
    steps: int | None
    """None where the settings of the stage do not tell."""
    between: tuple[int, int] | None
    """The least and the most steps there may be. None likewise."""
    seen: int | None
    """Tokens of all steps together. None likewise."""


def estimate_tuning(
    workspace: Workspace, values: Mapping[str, Any], dataset: str, checkpoint: str, stage: str = "sft"
) -> TuningEstimate:
    """The figures of a run of `stage` with these settings; UserError naming what stands in the way."""
    settings = strict.parse(spec_of(stage), values, f"{stage} settings")
    found = find_dataset(workspace, dataset)
    refuse_kind(stage, found)
    info = found.info
    folder = whole_model(resolve_checkpoint(workspace, checkpoint).path)
    context, wanted = context_of(folder), getattr(settings, "context", None)
    if wanted and context and wanted > context:
        raise UserError(f"The model sees {context:,} tokens, fewer than the context of {wanted:,}.")
    room = wanted or context or 1_024
    parameters = parameters_in(folder)
    records = info.records.get("train", 0)
    tokens = tokens_for(workspace, found, folder)
    packed = info.kind == "text" or getattr(settings, "packing", False)
    steps, least, most = (
        _steps(settings, count / room if packed else records) for count in (tokens.likely, tokens.least, tokens.most)
    )
    row = room if packed else tokens.likely / max(1, records)
    return TuningEstimate(
        parameters=parameters,
        standing=_standing(settings, folder, parameters),
        context=room,
        records=records,
        tokens=tokens,
        steps=steps,
        between=(least, most) if least and most else None,
        seen=round(steps * getattr(settings, "batch_size", 0) * row) if steps else None,
    )


def _steps(settings: msgspec.Struct, rows: float) -> int | None:
    """Optimiser steps, as far as the settings tell."""
    epochs, batch_size = getattr(settings, "epochs", None), getattr(settings, "batch_size", None)
    guess = max(1, math.ceil(epochs * rows / batch_size)) if epochs and batch_size else None
    return getattr(settings, "steps", None) or guess


def refuse_kind(stage: str, dataset: Dataset) -> None:
    """UserError when the stage cannot train on records of the dataset's kind."""
    kinds = KINDS.get(stage)
    if kinds and dataset.info.kind not in kinds:
        raise UserError(
            f"The dataset {dataset.name!r} holds records of kind {dataset.info.kind}.",
            f"Choose a dataset of kind {' or '.join(kinds)}.",
        )


def whole_model(folder: Path) -> Path:
    """The folder of the model that an adapter stands beside, as its own configuration names it; else the folder."""
    try:
        base = Path(json.loads((folder / "adapter_config.json").read_bytes())["base_model_name_or_path"])
        return base if base.is_dir() and not (folder / "config.json").exists() else folder
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return folder


def _standing(settings: msgspec.Struct, folder: Path, parameters: int) -> int:
    """Bytes beside activations. Adapters at most: rank · (rows + columns) of every matrix in the blocks."""
    if getattr(settings, "method", "full") != "lora":
        return STANDING * parameters
    in_blocks = [shape for name, shape in shapes_in(folder).items() if len(shape) == 2 and IN_BLOCK.search(name)]
    return FROZEN * parameters + STANDING * getattr(settings, "lora_rank", 0) * sum(map(sum, in_blocks))


def parameters_in(folder: Path) -> int:
    """Parameters in the safetensors files of a model folder; 0 when they cannot be read."""
    return sum(map(math.prod, shapes_in(folder).values()))


def shapes_in(folder: Path) -> dict[str, list[int]]:
    """Shapes of the tensors in a folder of safetensors files, from their headers; none if one is unreadable."""
    shapes: dict[str, list[int]] = {}
    try:
        for path in folder.glob("*.safetensors"):
            with path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(min(size, MAX_HEADER)))
            shapes |= {
                name: [int(n) for n in tensor["shape"]] for name, tensor in header.items() if name != "__metadata__"
            }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return shapes


def context_of(folder: Path) -> int:
    """Tokens that the model of a folder sees at once; 0 when its config.json does not say."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
        found = next((config[key] for key in ("max_position_embeddings", "n_positions") if key in config), 0)
        return int(found)
    except (OSError, ValueError, TypeError, RecursionError):
        return 0


def tunable(workspace: Workspace, made_by: Collection[str] = LANGUAGE_MODELS) -> list[str]:
    """Names of checkpoints that a stage may begin from: runs of these stages that have one, then imported models.

    Of imported ones that score or label texts, those alone that these stages would have made.
    """
    names = []
    for run in list_runs(workspace):
        try:
            spec = run.spec()
        except UserError:
            continue
        if spec.stage in made_by and list_checkpoints(run):
            names.append(spec.name)
    heads = {model.name: model.info.head for model in list_models(workspace)}
    found = sorted(path.parent.name for path in workspace.models.glob("*/config.json"))
    imported = [name for name in found if not (head := heads.get(name, "")) or MADE_BY[head] in made_by]
    return list(dict.fromkeys([*names, *imported]))


def begins_from(workspace: Workspace, stage: str, names: list[str]) -> str:
    """The checkpoint that a form proposes: the newest; where preferences are learnt, that of the newest SFT run."""
    tuned = tunable(workspace, ("sft",)) if stage in FROM_SFT else []
    return next((name for name in [*tuned, *names] if name in names), "")


def datasets_for(workspace: Workspace, stage: str) -> list[str]:
    """Names of the datasets that the stage can train on, the newest first, what is held out to measure by last."""
    found = [dataset for dataset in list_datasets(workspace) if dataset.info.kind in KINDS.get(stage, ())]
    ordered = sorted(found, key=lambda dataset: (_held_out(dataset), -dataset.info.created))
    return [dataset.name for dataset in ordered]


def _held_out(dataset: Dataset) -> bool:
    return bool(HELD_OUT.intersection(dataset.info.settings.get("sources") or ()))
