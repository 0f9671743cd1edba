"""Log-probabilities of the tokens a model is asked about, and how sure it is, without holding all logits at once.

N tokens, V vocabulary, C width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from stages.models.decoder import Decoder
from stages.models.loss import IGNORED

AT_ONCE = 2**24
"""Logits that are held at once, in numbers."""


def token_logprobs(
    model: Decoder, tokens_BT: Tensor, targets_BT: Tensor, documents: Tensor | None = None, *, temperature: float = 1.0
) -> Tensor:
    """log p(target) of each target under the model, in nats: (B, T) fp32, differentiable; 0 where a target is ignored.

    p = softmax(logits / temperature). `documents`: as for `Decoder.hidden_states`.
    """
    h_NC = model.hidden_states(tokens_BT, documents)
    return _spread(h_NC, model.head_weight, targets_BT, temperature, entropy=False)[0]


def token_logprobs_and_entropy(
    model: Decoder, tokens_BT: Tensor, targets_BT: Tensor, documents: Tensor | None = None, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """The same, and the entropy −Σ p log p of each distribution in nats: (B, T) fp32, without gradient."""
    h_NC = model.hidden_states(tokens_BT, documents)
    return logprobs_of_hidden(h_NC, model.head_weight, targets_BT, temperature=temperature)


def logprobs_of_hidden(
    h_NC: Tensor, weight_VC: Tensor, targets_BT: Tensor, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """The same two from hidden states and the output layer: for what reads the hidden states as well, as a head."""
    logprobs_BT, entropy_BT = _spread(h_NC, weight_VC, targets_BT, temperature, entropy=True)
    return logprobs_BT, entropy_BT


def _spread(h_NC: Tensor, weight_VC: Tensor, targets_BT: Tensor, temperature: float, *, entropy: bool) -> Tensor:
    """What `_chunk` finds, for all targets and in their places: (1 or 2, B, T)."""
    targets_N = targets_BT.reshape(-1)
    places_M = torch.nonzero(targets_N != IGNORED)[:, 0]  # prompts and padding need no logits
    rows = max(1, AT_ONCE // len(weight_VC))
    parts = list(zip(h_NC[places_M].split(rows), targets_N[places_M].split(rows), strict=True))
    if len(parts) == 1:
        found = _chunk(*parts[0], weight_VC, temperature, entropy)
    else:  # logits are computed again in the backward pass rather than kept
        again = [checkpoint(_chunk, *part, weight_VC, temperature, entropy, use_reentrant=False) for part in parts]
        found = torch.cat(again, 1)
    everywhere = found.new_zeros(len(found), len(targets_N)).index_copy(1, places_M, found)
    return everywhere.view(len(found), *targets_BT.shape)


def _chunk(h_MC: Tensor, targets_M: Tensor, weight_VC: Tensor, temperature: float, entropy: bool) -> Tensor:
    logits_MV = functional.linear(h_MC, weight_VC).float()
    log_p_MV = (logits_MV if temperature == 1.0 else logits_MV / temperature).log_softmax(-1)
    logprobs_M = log_p_MV.gather(1, targets_M[:, None])[:, 0]
    if not entropy:
        return logprobs_M[None]
    held_MV = log_p_MV.detach()
    return torch.stack((logprobs_M, -(held_MV.exp() * held_MV).sum(-1)))
