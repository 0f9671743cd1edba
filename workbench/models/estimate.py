"""What a training run will cost, before it is started: by arithmetic, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from stages.store import strict
from stages.store.datasets import find_dataset, list_datasets
from stages.store.presets import ModelConfig
from stages.store.shape import model_config
from stages.store.sizes import flops_per_token, parameter_count, training_memory
from stages.store.specs import spec_of
from stages.store.specs.pretrain import Pretrain
from stages.store.tokenizers import find_tokenizer, list_tokenizers
from stages.store.workspace import Workspace

VOCABULARY = 4_096
"""Entries that are assumed while no tokenizer is chosen."""


TOO_OFTEN = 40.0
"""Times to see a text from which on it teaches next to nothing more: Muennighoff et al., Scaling Data-Constrained
Language Models (arXiv 2305.16264), section 6."""


class Estimate(NamedTuple):
    """A run by its figures."""

    preset: str
    model: ModelConfig
    parameters: int
    memory: int
    """Bytes at the peak of a step, with fp32 masters and bf16 where precision may choose it; in each of several
    processes that hold the whole model."""
    tokens: int
    """Tokens that the run will see."""
    flops: float
    """Floating-point operations of the whole run."""
    epochs: float | None
    """How often it sees the training text, as far as that can be told."""

    @property
    def warning(self) -> str:
        """A sentence where the run would see its text so often that it learns it by heart; empty otherwise."""
        if self.epochs is None or self.epochs <= TOO_OFTEN:
            return ""
        return (
            f"It sees the text {self.epochs:,.0f} times: beyond about {TOO_OFTEN:.0f} a model learns it by heart. "
            "Take fewer steps, or more text."
        )


def estimate(
    workspace: Workspace, values: Mapping[str, Any], dataset: str, tokenizer: str, stage: str = "pretrain"
) -> Estimate:
    """The figures of a run that makes a new model, with these settings; UserError naming what stands in the way."""
    settings = strict.parse(spec_of(stage), values, f"{stage} settings")
    assert isinstance(settings, Pretrain), f"{stage} makes no new model"
    entry = find_tokenizer(workspace, tokenizer) if tokenizer else None
    model = model_config(settings, entry.info.vocab_size if entry else VOCABULARY)
    micro_batch = min(settings.sequences_at_once, max(1, settings.batch_size // settings.gpus))
    memory = training_memory(model, micro_batch, dtype="fp32" if settings.precision == "fp32" else "bf16")
    tokens = settings.steps * settings.batch_size * model.context
    available = None
    if dataset and entry is not None and entry.info.bytes_per_token:
        size = find_dataset(workspace, dataset).info.bytes.get("train", 0)
        available = size / entry.info.bytes_per_token
    return Estimate(
        preset=settings.preset,
        model=model,
        parameters=parameter_count(model).total,
        memory=memory.total,
        tokens=tokens,
        flops=float(flops_per_token(model)) * tokens,
        epochs=tokens / available if available else None,
    )


def default_parents(workspace: Workspace, values: Mapping[str, Any]) -> tuple[str, str]:
    """Dataset and tokenizer to begin with: as given, else the newest tokenizer with the text it was trained on."""
    datasets = {found.name: found for found in list_datasets(workspace) if found.info.kind == "text"}
    tokenizers = {found.name: found for found in list_tokenizers(workspace)}
    dataset, tokenizer = str(values.get("dataset") or ""), str(values.get("tokenizer") or "")
    by_age = sorted(tokenizers.values(), key=lambda found: found.info.created, reverse=True)
    if not tokenizer and by_age:
        tokenizer = next((found.name for found in by_age if found.info.dataset == dataset), by_age[0].name)
    if not dataset and tokenizer in tokenizers and tokenizers[tokenizer].info.dataset in datasets:
        dataset = tokenizers[tokenizer].info.dataset
    newest = max(datasets.values(), key=lambda found: found.info.created, default=None)
    return dataset or (newest.name if newest else ""), tokenizer
