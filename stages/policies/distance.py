"""How far a policy has gone from a reference: the KL of the answers that it draws.

    KL(π ‖ π_ref) = E_{y ~ π} Σ_t Σ_v π(v | x, y_<t) [log π(v | x, y_<t) − log π_ref(v | x, y_<t)]

The inner sum is exact, so that chance is in the drawn answers alone.

B answers, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from stages.generate import Sampling, generate
from stages.models.decoder import Decoder
from stages.models.loss import IGNORED
from stages.policies.rollouts import lay_out


def kl_from(reference: Decoder, policy: Decoder, prompts: Sequence[list[int]], sampling: Sampling, slots: int) -> float:
    """Mean KL of the policy from the reference in nats an answer, over an answer to each prompt, `slots` at once."""
    samplings = [replace(sampling, seed=sampling.seed + number) for number in range(len(prompts))]
    answers = generate(policy, prompts, samplings, max_slots=slots)
    total = 0.0
    for start in range(0, len(prompts), slots):
        some = slice(start, start + slots)
        tokens_BT, targets_BT = lay_out(prompts[some], answers[some], pad=0)
        total += answer_kl(reference, policy, tokens_BT, targets_BT).sum().item()
    return total / len(prompts)


@torch.no_grad()
def answer_kl(reference: Decoder, policy: Decoder, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
    """The inner sums over the tokens of each answer, where targets are not IGNORED: (B,) fp32, in nats."""
    log_p_BTV, log_q_BTV = (
        model(tokens_BT.to(model.tokens.device)).float().log_softmax(-1) for model in (policy, reference)
    )
    kl_BT = (log_p_BTV.exp() * (log_p_BTV - log_q_BTV)).sum(-1)
    return kl_BT.where((targets_BT != IGNORED).to(kl_BT.device), 0.0).sum(-1)
