"""How likely a model holds given tokens after others: log p(x_t | x_<t), for many texts in batches of like length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from stages.asking.completion import TextModel


class Scored(NamedTuple):
    """Tokens to be predicted: `ids` with the number of first tokens that are only read."""

    ids: list[int]
    read: int


def windows(ids: Sequence[int], context: int) -> Iterator[Scored]:
    """Every token but the first once: windows of `context` + 1 tokens, each half beyond the one before."""
    at = 1
    while at < len(ids):
        stop = min(len(ids), context + 1 if at == 1 else at + max(1, context // 2))
        start = max(0, stop - context - 1)
        yield Scored(list(ids[start:stop]), at - start)
        at = stop


@torch.no_grad()
def log_likelihoods(model: TextModel, pieces: Sequence[Scored], batch_tokens: int) -> list[tuple[float, int]]:
    """For each piece the sum of log p over its tokens from `read` on, in nats, and their number."""
    order = sorted(range(len(pieces)), key=lambda i: len(pieces[i].ids))
    found: list[tuple[float, int]] = [(0.0, 0)] * len(pieces)
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and (stop - start + 1) * len(pieces[order[stop]].ids) <= batch_tokens:
            stop += 1
        some = [pieces[i] for i in order[start:stop]]
        for i, result in zip(order[start:stop], _score(model, some), strict=True):
            found[i] = result
        start = stop
    return found


def _score(model: TextModel, some: Sequence[Scored]) -> list[tuple[float, int]]:
    """Padded on the right, which causal attention does not see."""
    longest = max(len(piece.ids) for piece in some) - 1
    device = model.decoder.tokens.device
    inputs = torch.zeros(len(some), longest, dtype=torch.long)
    targets = torch.zeros(len(some), longest, dtype=torch.long)
    wanted = torch.zeros(len(some), longest)
    for row, piece in enumerate(some):
        ids = torch.tensor(piece.ids)
        inputs[row, : len(ids) - 1], targets[row, : len(ids) - 1] = ids[:-1], ids[1:]
        wanted[row, piece.read - 1 : len(ids) - 1] = 1
    logits = model.decoder(inputs.to(device)).float()
    logs = torch.log_softmax(logits, -1).gather(-1, targets.to(device)[..., None])[..., 0].cpu().double()
    return [(float((logs[i] * wanted[i]).sum()), int(wanted[i].sum())) for i in range(len(some))]
