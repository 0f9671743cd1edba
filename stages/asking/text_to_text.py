"""Writing with an encoder-decoder: a text is read once, and another is written token by token.

What the encoder has read is turned into keys and values once for each layer, and what is written keeps its own, so that
a step costs one token. Token ids in, token ids out. B texts, T tokens written, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import torch
from torch import Tensor

from stages.generate import Sampling, choose
from stages.models.t5 import T5, KeysValues
from stages.store.errors import WorkFailed

TOGETHER = 64
"""Texts that are written at once."""


class Writing:
    """Texts being written, a row each: ask for `logits`, choose, `append`, and again.

    begun_BT: what is written already, the start token first.
    """

    def __init__(self, model: T5, prompts: Sequence[Sequence[int]], begun_BT: Tensor) -> None:
        self._model, device = model, model.tokens.device
        longest = max(map(len, prompts))
        read_BS = torch.tensor([[*prompt, *[0] * (longest - len(prompt))] for prompt in prompts], device=device)
        self._lengths_B = torch.tensor([len(prompt) for prompt in prompts], device=device)
        states_BSC = model.encode(read_BS, self._lengths_B)
        self._reads: list[KeysValues] = [layer.keys_of(states_BSC) for layer in model.decoder_blocks]  # type: ignore[operator]
        self._before: list[KeysValues] | None = None
        self._unread_BT = begun_BT.to(device)

    def logits(self) -> Tensor:
        """What may come next, (B, V) fp32. Raises WorkFailed when the model's output is not a number."""
        h_BTC, self._before = self._model.write(self._unread_BT, self._reads, self._lengths_B, self._before)
        logits_BV = self._model.logits(h_BTC[:, -1]).float()
        if not bool(logits_BV.amax(-1).isfinite().all()):
            raise WorkFailed(
                "The model's output is not a number.", "Its weights are damaged; take an earlier checkpoint."
            )
        return logits_BV

    def append(self, tokens_B: Tensor) -> None:
        """Go on from one more token in each row."""
        self._unread_BT = tokens_B[:, None]


@torch.inference_mode()
def write(
    model: T5, prompts: Sequence[Sequence[int]], sampling: Sampling, *, start: int, ends: Sequence[int]
) -> list[list[int]]:
    """What the model writes to each prompt, without the token that ends it.

    start: the token that what is written begins with. ends: tokens that end it. Row n draws with the seed + n.
    """
    written: list[list[int]] = []
    for first in range(0, len(prompts), TOGETHER):
        some = prompts[first : first + TOGETHER]
        written += _write_some(model, some, sampling, start, set(ends), first)
    return written


def _write_some(
    model: T5, prompts: Sequence[Sequence[int]], sampling: Sampling, start: int, ends: set[int], first: int
) -> list[list[int]]:
    writing = Writing(model, prompts, torch.full((len(prompts), 1), start))
    return follow(writing, len(prompts), sampling, ends, first)


class Stepwise(Protocol):
    """Texts that grow by a token a row at each step."""

    def logits(self) -> Tensor:
        """What may come next, (B, V) fp32."""

    def append(self, tokens_B: Tensor) -> None:
        """Go on from one more token in each row."""


def follow(writing: Stepwise, rows: int, sampling: Sampling, ends: Collection[int], first: int = 0) -> list[list[int]]:
    """What comes in each of the rows, without the token that ends it. Row n draws with the seed + first + n."""
    written: list[list[int]] = [[] for _ in range(rows)]
    running = set(range(rows))
    dice = [torch.Generator().manual_seed(sampling.seed + first + row) for row in range(rows)]
    for _ in range(sampling.max_new_tokens):
        draws = [float(torch.rand((), dtype=torch.float64, generator=die)) for die in dice]
        chosen_B = choose(writing.logits(), [sampling] * rows, draws)
        for row, token in enumerate(chosen_B.tolist()):
            if row in running and token in ends:
                running.discard(row)
            elif row in running:
                written[row].append(token)
        if not running:
            break
        writing.append(chosen_B)
    return written
