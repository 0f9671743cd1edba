"""Log-probabilities of the tokens a model is asked about, and how sure it is, without holding all logits at once.

N tokens, V vocabulary, C width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from stages.models.decoder import Decoder
from stages.models.loss import IGNORED

AT_ONCE = 2**24
"""Logits that are held at once, in numbers."""


MOST_SHARED = 0.8
"""Prompts are read once each where that leaves at most this share of the tokens."""


def token_logprobs(
    model: Decoder, tokens_BT: Tensor, targets_BT: Tensor, documents: Tensor | None = None, *, temperature: float = 1.0
) -> Tensor:
    """log p(target) of each target under the model, in nats: (B, T) fp32, differentiable; 0 where a target is ignored.

    p = softmax(logits / temperature). `documents`: as for `Decoder.hidden_states`.
    """
    h_MC, places_M = hidden_states_of_targets(model, tokens_BT, targets_BT, documents)
    return _spread(h_MC, places_M, model.head_weight, targets_BT, temperature, entropy=False)[0]


def token_logprobs_and_entropy(
    model: Decoder, tokens_BT: Tensor, targets_BT: Tensor, documents: Tensor | None = None, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """The same, and the entropy −Σ p log p of each distribution in nats: (B, T) fp32, without gradient."""
    h_MC, places_M = hidden_states_of_targets(model, tokens_BT, targets_BT, documents)
    logprobs_BT, entropy_BT = _spread(h_MC, places_M, model.head_weight, targets_BT, temperature, entropy=True)
    return logprobs_BT, entropy_BT


def logprobs_of_hidden(
    h_MC: Tensor, places_M: Tensor, weight_VC: Tensor, targets_BT: Tensor, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """The same two from what `hidden_states_of_targets` gave: for what reads it as well, as a head."""
    logprobs_BT, entropy_BT = _spread(h_MC, places_M, weight_VC, targets_BT, temperature, entropy=True)
    return logprobs_BT, entropy_BT


def in_place(values_M: Tensor, places_M: Tensor, like_BT: Tensor) -> Tensor:
    """Values of some of B·T tokens, where they stand among all, and 0 elsewhere: (B, T). Differentiable."""
    return values_M.new_zeros(like_BT.numel()).index_copy(0, places_M, values_M).view(like_BT.shape)


def hidden_states_of_targets(
    model: Decoder, tokens_BT: Tensor, targets_BT: Tensor, documents: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """What the output layer reads for each target that is not ignored (M, C), and their places among all (M,)."""
    places_M = places_of(targets_BT)
    shared = None if documents is not None else share_prompts(model, tokens_BT, targets_BT)
    if shared is None:
        return model.hidden_states(tokens_BT, documents, places_M), places_M
    prompts, lengths, which, said, even, sources_M = shared
    return model.hidden_states_after(prompts, lengths, which, said, sources_M, even=even), places_M


class Shared(NamedTuple):
    """K different prompts of at most P tokens, and what was said after them in B rows of S tokens, for M targets."""

    prompts: Tensor
    """(K, P) int64."""
    lengths: Tensor
    """(K,): tokens of each."""
    which: Tensor
    """(B,): whose prompt a row has."""
    said: Tensor
    """(B, S) int64."""
    even: bool
    """Whether all prompts have P tokens."""
    sources: Tensor
    """(M,): where, among the tokens of the prompts and then of what was said, stands the one before each target."""


def share_prompts(model: Decoder, tokens_BT: Tensor, targets_BT: Tensor) -> Shared | None:
    """The prompts of these rows, each once; None where that would save too little.

    A row's prompt are its tokens up to that before its first target. So the completions of one prompt, as GRPO draws
    them, take no more of its tokens than one would.
    """
    (B, T), device = tokens_BT.shape, tokens_BT.device
    if any(window is not None for window in model.windows) or B == 1:
        return None
    wanted_BT = targets_BT != IGNORED
    starts_B = wanted_BT.int().argmax(1) + 1  # tokens of the prompt
    longest, shortest = (int(each) for each in torch.stack((starts_B.max(), starts_B.min())).tolist())
    places_T = torch.arange(T, device=device)
    alone_BP = tokens_BT[:, :longest].masked_fill(places_T[:longest] >= starts_B[:, None], -1)
    prompts_KP, which_B = torch.unique(alone_BP, dim=0, return_inverse=True)
    ends_B = ((places_T + 1) * wanted_BT).amax(1)  # behind the last target
    S = max(1, int((ends_B - starts_B).max()))
    if len(prompts_KP) * longest + B * S > MOST_SHARED * B * T:
        return None
    lengths_K = (prompts_KP >= 0).sum(1)
    behind_BS = (starts_B[:, None] + torch.arange(S, device=device)).clamp(max=T - 1)
    return Shared(
        prompts_KP.clamp(min=0),
        lengths_K,
        which_B,
        tokens_BT.gather(1, behind_BS),
        longest == shortest,
        _sources(wanted_BT, starts_B, which_B, longest, len(prompts_KP), S),
    )


def _sources(wanted_BT: Tensor, starts_B: Tensor, which_B: Tensor, P: int, K: int, S: int) -> Tensor:
    """`Shared.sources`: the first target of a row is read from its prompt's end, the others from what was said."""
    rows_M, columns_M = torch.nonzero(wanted_BT, as_tuple=True)
    said_M = columns_M - starts_B[rows_M]  # -1: the end of the prompt
    return torch.where(said_M < 0, which_B[rows_M] * P + columns_M, K * P + rows_M * S + said_M)


def places_of(targets_BT: Tensor) -> Tensor:
    """Where targets stand among all tokens (M,): prompts and padding need no logits."""
    return torch.nonzero(targets_BT.reshape(-1) != IGNORED)[:, 0]


def _spread(
    h_MC: Tensor, places_M: Tensor, weight_VC: Tensor, targets_BT: Tensor, temperature: float, *, entropy: bool
) -> Tensor:
    """What `_chunk` finds, for all targets and in their places: (1 or 2, B, T)."""
    targets_N = targets_BT.reshape(-1)
    rows = max(1, AT_ONCE // len(weight_VC))
    parts = list(zip(h_MC.split(rows), targets_N[places_M].split(rows), strict=True))
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
    return torch.stack((logprobs_M, -torch.linalg.vecdot(held_MV.exp(), held_MV)))
