"""What a model expected at each place of a text, and how it took the token that stands there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from stages.data.tokenizer import TextTokenizer
from stages.data.tokens import visible
from stages.store.errors import UserError

LONGEST = 100_000
"""Characters of a text that are looked at."""


class Expected(NamedTuple):
    """A token that the model held likely at a place."""

    text: str
    probability: float


class Scored(NamedTuple):
    """A token of a text, and what the model expected in its place."""

    text: str
    id: int
    logprob: float
    """Nats."""
    rank: int
    """1: the model held no token likelier."""
    entropy: float
    """Of all that it expected, in nats."""
    top: list[Expected]


class Score(NamedTuple):
    """A text as a model reads it."""

    tokens: list[Scored]
    next: list[Expected]
    """What would come after the text; nothing where tokens were hidden in turn."""
    left_out: int
    """Tokens at the end that exceed the context."""
    hides: bool = False
    """Each token was hidden in turn, rather than told from what stands before it."""
    note: str = ""
    """What else a person should know, in a few words."""


class Reading(NamedTuple):
    """A text framed as the model is trained to see it: tokens, what each shows, and where the text itself stands."""

    ids: list[int]
    shown: list[str]
    first: int
    stop: int
    left_out: int


class Row(NamedTuple):
    """What a model expected at one place, and how it took the token that stands there."""

    top: list[Expected]
    logprob: float
    rank: int
    entropy: float

    def at(self, shown: str, token: int) -> Scored:
        """The same of the token that is meant, which shows as `shown`."""
        return Scored(shown, token, self.logprob, self.rank, self.entropy, self.top)


def refuse_long(text: str) -> None:
    """Raise UserError for a text that nobody would look at token by token."""
    if len(text) > LONGEST:
        raise UserError(f"The text has more than {LONGEST:,} characters.", "Choose a shorter one.")


def expectations(logits_RV: Tensor, tokenizer: TextTokenizer, targets: Sequence[int], count: int) -> list[Row]:
    """At each of R places, by fp32 logits (R, V): the `count` likeliest tokens, and how likely the target was."""
    logs_RV = logits_RV.log_softmax(-1)
    entropy = -(logs_RV.exp() * logs_RV).sum(-1)
    found = logs_RV[:, : tokenizer.vocab_size].topk(min(count, tokenizer.vocab_size))
    told = logs_RV.gather(1, torch.tensor(targets, device=logs_RV.device)[:, None])
    ranks = (logs_RV > told).sum(-1) + 1
    return [
        Row([Expected(_named(tokenizer, token), p) for token, p in zip(ids, shares, strict=True)], *taken)
        for ids, shares, *taken in zip(
            found.indices.tolist(),
            found.values.exp().tolist(),
            told[:, 0].tolist(),
            ranks.tolist(),
            entropy.tolist(),
            strict=True,
        )
    ]


def _named(tokenizer: TextTokenizer, token: int) -> str:
    """A token's text; an id that the vocabulary leaves out has none."""
    return visible(tokenizer.token_bytes(token)) if tokenizer.name_of(token) else ""
