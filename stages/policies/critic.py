"""The value model of PPO: a value for each token, from a model of its own or from a head on the policy.

    reward  begins as the reward model, as in Stiennon et al. (arXiv 2009.01325), on the scale of the rewards: its
            normalised scores
    copy    begins as the policy, with a new head
    head    w · h_t on the policy's own hidden states: no further model, and its loss also moves the policy's weights

Shapes: B completions, T tokens, C width.
"""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from stages.models.decoder import Decoder
from stages.models.logprobs import hidden_states_of_targets, in_place, logprobs_of_hidden, places_of
from stages.models.tensors import save_tensors
from stages.models.value import ValueModel, load_value_model, new_value_model, save_value_model
from stages.store.errors import UserError
from stages.store.rewards import FILE as SCALE
from stages.store.rewards import Scale, read_scale
from stages.training import distributed
from stages.training.adapting import config_of, open_whole

FOLDER = "value"
"""Where it stands in a checkpoint."""
HEAD = "head.safetensors"


class Head(nn.Module):
    """w · h_t for hidden states of another model; w ~ N(0, 1 / (C + 1)) at first."""

    def __init__(self, width: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.score = nn.Parameter(torch.empty(1, width).normal_(0.0, 1 / math.sqrt(width + 1), generator=generator))

    def forward(self, h_NC: Tensor) -> Tensor:
        """Values (N,) in fp32."""
        return functional.linear(h_NC.float(), self.score.float())[:, 0]


class Critic:
    """What an actor and its value model say of rollouts. `own` is the part that the value model's optimiser trains."""

    def __init__(self, actor: Decoder, own: Head | ValueModel, scale: Scale | None = None) -> None:
        """scale: that of the reward model which `own` began as."""
        self.actor, self.own, self.scale = actor, own, scale or Scale()

    def __call__(self, inputs_BT: Tensor, targets_BT: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities of the targets, entropies and values: (B, T) each, fp32. Only entropies have no gradient.

        A value is of the state before the target is said. It is 0 where there is no target.
        """
        h_MC, places_M = hidden_states_of_targets(self.actor, inputs_BT, targets_BT)
        logprobs_BT, entropy_BT = logprobs_of_hidden(
            h_MC, places_M, self.actor.head_weight, targets_BT, temperature=temperature
        )
        if isinstance(self.own, ValueModel):
            return logprobs_BT, entropy_BT, self.values(inputs_BT, targets_BT)
        return logprobs_BT, entropy_BT, in_place(self.own(h_MC), places_M, targets_BT)

    def values(self, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """The values alone (B, T), of a value model that is no head on the actor."""
        places_M = places_of(targets_BT)
        values_M = (self.own(inputs_BT, places_M=places_M) - self.scale.mean) / self.scale.std
        return in_place(values_M, places_M, targets_BT)

    def save(self, folder: Path, *, pad_id: int) -> None:
        """Write it into a checkpoint's folder, beside the policy."""
        place = folder / FOLDER
        place.mkdir()
        if isinstance(self.own, Head):
            save_tensors({"score.weight": self.own.score.detach().cpu()}, place / HEAD, {"format": "pt"})
        else:
            save_value_model(self.own, place, pad_id=pad_id)
            (place / SCALE).write_bytes(msgspec.json.encode(self.scale))


def kind_of(asked: str, reward: Path | None) -> str:
    """What the value model begins as: reward, copy or head. asked: one of them, or auto."""
    if asked == "auto":
        return "reward" if reward else "copy"
    return asked


def open_critic(
    kind: str,
    actor: Decoder,
    base: Path,
    reward: Path | None,
    checkpoint: Path | None,
    *,
    seed: int,
    dtype: torch.dtype = torch.float32,
    checkpointing: bool = False,
) -> Critic:
    """The value model of a fresh run, or that of the checkpoint the run goes on from.

    kind: auto, reward, copy or head. base: the policy's first checkpoint. reward: the reward model, if there is one.
    dtype: of the arithmetic, for a model of its own, which is cut where the actor is. checkpointing: whether such a
    model computes activations again in the backward pass.
    Raises UserError where the reward model cannot be one for this policy.
    """
    kind = kind_of(kind, reward)
    device, scale = actor.tokens.device, Scale()
    place = distributed.place_beside(actor, device)
    if kind == "head":
        own: Head | ValueModel = Head(actor.config.width, seed).to(device)
        if checkpoint:
            with torch.no_grad():
                own.score.copy_(load_file(checkpoint / FOLDER / HEAD)["score.weight"])
    elif checkpoint:
        own, scale = load_value_model(checkpoint / FOLDER, torch.float32, place), read_scale(checkpoint / FOLDER)
    elif kind == "reward":
        if reward is None:
            raise UserError("The value model is to begin as the reward model, and none is given.", "Set value to copy.")
        own, scale = load_value_model(reward, torch.float32, place, config_of(reward, 0.0)), read_scale(reward)
        if own.config.context < actor.config.context:
            raise UserError(f"The reward model sees {own.config.context:,} tokens, fewer than the policy.")
    else:
        own = new_value_model(open_whole(base, place, config_of(base, 0.0)), seed)
    if isinstance(own, ValueModel):
        own.decoder.checkpointing = checkpointing
        own.train()  # nothing is dropped, but activation_checkpointing asks for it
        distributed.shard_beside(actor, own, device, dtype)
    return Critic(actor, own, scale)
