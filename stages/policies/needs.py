"""What a process must hold to improve a policy: by model, and refused where several processes have not the memory."""

from __future__ import annotations

from pathlib import Path

import msgspec
import torch

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


def refuse_too_large(
    settings: Settings, config: ModelConfig, reward: Path | None, reference: Path | None, device: torch.device
) -> None:
    """Raise UserError where one of several processes cannot hold what it must: arguments as for `needs_of`.

    One alone finds out by trying.
    """
    if not distributed.several():
        return
    needs = needs_of(settings, config, reward, reference, choose_precision(settings.precision, device).name)
    need, free = sum(needs.values()), distributed.free_memory(device)
    if need > free:
        parts = ", ".join(f"{name} {size / 1e9:.1f} GB" for name, size in needs.items())
        hint = "choose smaller models, or fewer processes a machine."
        hint = hint.capitalize() if settings.method == "lora" else f"Train adapters (method = lora), {hint}"
        raise UserError(
            f"Each process must hold every model whole, which takes {need / 1e9:.1f} GB of memory ({parts}), and "
            f"{free / 1e9:.1f} GB are free for it: a policy that writes is not cut into pieces.",
            hint,
        )


def _trained(config: ModelConfig, dtype: str) -> int:
    """Weights, gradients, masters and moments."""
    memory = training_memory(config, 1, dtype=dtype)
    return memory.total - memory.activations


def _scoring(folder: Path) -> ModelConfig:
    """The shape of a reward model, which has no output layer of its own."""
    return msgspec.structs.replace(config_of(folder, 0.0), tied=True)
