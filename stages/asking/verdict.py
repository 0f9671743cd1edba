"""How a model that labels comes to what it says of a text, token by token: ŷ is the likeliest label of the whole text.

    a decoder    log p(ŷ | x_1 … x_t)                      its head read at every token, one pass
    an encoder   log p(ŷ | x) − log p(ŷ | x, x_t → [MASK])   each token masked in turn, which is occlusion

A decoder is trained to be read at the last token alone: what stands before shows how it comes to its judgement, from
left to right. An encoder's [CLS] sees the whole text, so that nothing is read on the way; above 0 a token speaks for ŷ,
below 0 against it. Of several sequences that are judged together, both orders of a pair or the options of a question,
one changes and the others stay whole. Sources: Zeiler and Fergus, Visualizing and Understanding Convolutional Networks
(arXiv 1311.2901), section 4.2; Li, Monroe and Jurafsky, Understanding Neural Networks through Representation Erasure
(arXiv 1612.08220), equation 1, whose difference is taken here without dividing by log p.
Shapes: N tokens of all sequences, S sequences, L labels, P places, C width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from stages.data.bert_masks import MASKS
from stages.data.labelled import Input, batch_of
from stages.data.tokenizer import TextTokenizer
from stages.measuring.assessment import Tensors
from stages.models.heads import Classifier

AT_ONCE = 8_192
"""Tokens of one batch of masked sequences."""
MOST_READ = 16_384
"""Tokens that all masked sequences have together: every token of a text of 128 is masked, of a longer one the first.
BERT base reads so many in about 35 s of one core."""


def up_to(model: Classifier, h_NC: Tensor, documents: Tensor) -> list[float]:
    """A decoder's log p(ŷ) in nats at each of its tokens (N,), those that frame the texts among them."""
    logits_SL = model.logits(h_NC[documents[1:] - 1])
    sequences_N = torch.repeat_interleave(torch.arange(len(logits_SL), device=h_NC.device), documents.diff())
    told: list[float] = _log_p(model, logits_SL, model.logits(h_NC), sequences_N).tolist()
    return told


def without(
    model: Classifier, h_NC: Tensor, documents: Tensor, inputs: Sequence[Input], own: Sequence[int], mask: int
) -> dict[int, float]:
    """By place among all tokens: the nats by which masking it lowers an encoder's log p(ŷ).

    own: the places that may be masked; those are left out that MOST_READ has no room for.
    """
    logits_SL = model.logits(h_NC[documents[:-1]])
    whole = _log_p(model, logits_SL, logits_SL[:1], torch.zeros(1, dtype=torch.long, device=h_NC.device))[0]
    found: dict[int, float] = {}
    for number, places in _batches(documents.tolist(), own):
        start = int(documents[number])
        copies = [_masked(inputs[number], place - start, mask) for place in places]
        batch = Tensors.of(batch_of(copies, []), h_NC.device)
        hidden_NC = model.hidden_states(batch.tokens, batch.documents, batch.types)
        sequences_P = torch.full((len(places),), number, device=h_NC.device)
        told_P = _log_p(model, logits_SL, model.logits(hidden_NC[batch.documents[:-1]]), sequences_P)
        found |= dict(zip(places, (whole - told_P).tolist(), strict=True))
    return found


def mask_of(tokenizer: TextTokenizer) -> int | None:
    """The token that masks, where there is one."""
    return next((token for name in MASKS if (token := tokenizer.id_of(name)) is not None), None)


def _log_p(model: Classifier, logits_SL: Tensor, changed_PL: Tensor, sequences_P: Tensor) -> Tensor:
    """log p(ŷ), (P,), were the logits of one sequence those of a row of `changed_PL`; ŷ by the logits as they are."""
    if model.head.task == "choice":
        scores_PS = logits_SL[:, 0].repeat(len(changed_PL), 1)
        scores_PS[torch.arange(len(changed_PL), device=scores_PS.device), sequences_P] = changed_PL[:, 0]
        return scores_PS.log_softmax(-1)[:, int(logits_SL[:, 0].argmax())]
    total_L = logits_SL.sum(0)
    return (total_L - logits_SL[sequences_P] + changed_PL).log_softmax(-1)[:, int(total_L.argmax())]


def _batches(documents: Sequence[int], own: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """A sequence and places in it to mask at once, until MOST_READ is spent."""
    room = MOST_READ
    for number, (start, stop) in enumerate(pairwise(documents)):
        inside = [place for place in own if start <= place < stop][: room // max(1, stop - start)]
        room -= len(inside) * (stop - start)
        at_once = max(1, AT_ONCE // max(1, stop - start))
        for first in range(0, len(inside), at_once):
            yield number, inside[first : first + at_once]


def _masked(one: Input, at: int, mask: int) -> Input:
    return one._replace(ids=[*one.ids[:at], mask, *one.ids[at + 1 :]])
