"""What a process must hold to improve a policy: by model, and refused where several processes have not the memory."""

from __future__ import annotations

from pathlib import Path

import msgspec
import torch
from torch import nn

from stages.policies.critic import kind_of
from stages.store.architecture import ModelConfig
from stages.store.errors import UserError
from stages.store.sizes import inference_memory, training_memory
from stages.store.specs.policy import PolicyGradient as Settings
from stages.store.specs.ppo import PPO
from stages.training import distributed
from stages.training.adapting import config_of
from stages.training.precision import choose_precision


def needs_of(
    settings: Settings, config: ModelConfig, reward: Path | None, reference: Path | None, dtype: str
) -> dict[str, int]:
    """Bytes that are there through the whole run, by the model that takes them.

    config: of the policy. reward, reference: folders of those that are models of their own. dtype: fp32 or bf16. What a
    step takes beyond that depends on how long rows are: that is tried once all is open. Adapters are not counted.
    """
    if settings.method == "lora":
        needs = {"the policy": inference_memory(config, dtype=dtype).weights}
    else:
        needs = {"the policy in training": _trained(config, dtype)}
    value = kind_of(settings.value, reward) if isinstance(settings, PPO) else "head"
    if value != "head":
        begins_as = _scoring(reward) if value == "reward" and reward else msgspec.structs.replace(config, tied=True)
        needs["the value model in training"] = _trained(begins_as, dtype)
    if reference is not None:
        needs["the reference"] = inference_memory(config_of(reference, 0.0), dtype=dtype).weights
    if reward is not None:
        needs["the reward model"] = inference_memory(_scoring(reward), dtype=dtype).weights
    return needs


def fitting_sharding(
    settings: Settings, config: ModelConfig, reward: Path | None, reference: Path | None, device: torch.device
) -> str:
    """What each of several processes is to hold: ddp, or fsdp where asked for or ddp does not fit. As for `needs_of`.

    Cut, a process holds its piece of every model, and one at a time whole: to write, to score, or to tell what it
    thinks. Raises UserError where even this does not fit. One process alone finds out by trying.
    """
    if not distributed.several():
        return "ddp"
    dtype = choose_precision(settings.precision, device).name
    parts = needs_of(settings, config, reward, reference, dtype)
    shapes = [config, *(_scoring(folder) for folder in (reference, reward) if folder)]
    largest = max(inference_memory(shape, dtype=dtype).weights for shape in shapes)
    needs = {"ddp": sum(parts.values()), "fsdp": sum(parts.values()) // distributed.size() + largest}
    free, adapters = distributed.free_memory(device), settings.method == "lora"
    fitting = "fsdp" if needs["ddp"] > free and not adapters else "ddp"
    chosen: str = distributed.broadcast_object(fitting if settings.sharding == "auto" else settings.sharding)
    if needs[chosen] > free:
        told = ", ".join(f"{name} {size / 1e9:.1f} GB" for name, size in parts.items())
        held = "every model whole" if chosen == "ddp" else f"a piece of every model, and {largest / 1e9:.1f} GB whole"
        hint = "choose smaller models, or fewer processes a machine."
        raise UserError(
            f"Each process must hold {held}, which takes {needs[chosen] / 1e9:.1f} GB of memory ({told}), and "
            f"{free / 1e9:.1f} GB are free for it.",
            hint.capitalize() if adapters else f"Train adapters (method = lora), {hint}",
        )
    return chosen


def refuse_uneven_shares(model: nn.Module, count: int, what: str, minibatches: int = 1) -> None:
    """Raise UserError where processes that hold a model in pieces have not equally much of a minibatch to learn from.

    They must compute side by side: for each block all of them give their pieces at once.
    """
    processes = distributed.size()
    if distributed.sharded(model) and count % (minibatches * processes):
        raise UserError(
            f"With sharding = fsdp every process must learn from equally much, and {count:,} {what} in {minibatches:,} "
            f"minibatches cannot be shared evenly by {processes:,} processes.",
            f"Choose a multiple of {minibatches * processes:,}, or set sharding to ddp.",
        )


def _trained(config: ModelConfig, dtype: str) -> int:
    """Weights, gradients, masters and moments."""
    memory = training_memory(config, 1, dtype=dtype)
    return memory.total - memory.activations


def _scoring(folder: Path) -> ModelConfig:
    """The shape of a reward model, which has no output layer of its own."""
    return msgspec.structs.replace(config_of(folder, 0.0), tied=True)
