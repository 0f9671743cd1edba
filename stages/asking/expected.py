"""What a model expected at each place of a text, and how it took the token that stands there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from stages.data.tokenizer import TextTokenizer
from stages.data.tokens import visible
from stages.models.decoder import Decoder
from stages.models.encoder import Encoder
from stages.models.transformer_xl import TransformerXL
from stages.store.errors import UserError

ARROW = "=>"
"""Between two parts of what a person writes: what is read and what is written, a question and its answer."""
ROWS = 64
"""Places whose logits are held at once."""
KEPT = "Expected by the output layer still in its weights, which training the head may have spoilt."
LOST = "No token probabilities: its weights hold no output layer."
"""What is said of tokens' probabilities beside a head."""
LONGEST = 100_000
"""Characters of a text that are looked at."""


class Expected(NamedTuple):
    """A token that the model held likely at a place."""

    text: str
    probability: float


class Label(NamedTuple):
    """A label that a model may put to a text or a word."""

    text: str
    probability: float


class Scored(NamedTuple):
    """A token of a text, what the model expected in its place, and what a head says at it."""

    text: str
    id: int
    logprob: float | None = None
    """Nats. None where the model expects nothing: it has no output layer, or nothing stands before the token."""
    rank: int = 0
    """1: the model held no token likelier."""
    entropy: float = 0.0
    """Of all that it expected, in nats."""
    top: Sequence[Expected] = ()
    score: float | None = None
    """Of a reward model: that of the text up to here, normalised."""
    raw: float | None = None
    """The same as log-odds."""
    labels: Sequence[Label] = ()
    """Of a model that labels, where it does so at this token: the likeliest first."""
    upto: float | None = None
    """Of a decoder that labels texts: the log-probability in nats, read here, of the label that it gives the whole."""
    without: float | None = None
    """Of an encoder that does: nats by which masking the token lowers the log-probability of that label."""


class Score(NamedTuple):
    """A text as a model reads it."""

    tokens: list[Scored]
    next: list[Expected]
    """What would come after the text; nothing where tokens were hidden in turn, and beside a head."""
    left_out: int
    """Tokens at the end that exceed the context."""
    hides: bool = False
    """Each token was hidden in turn, rather than told from what stands before it."""
    note: str = ""
    """What else a person should know, in a few words."""
    head: str = ""
    """What stands on the model in place of, or beside, an output layer: reward, or the task of its labels."""
    read_at: Sequence[int] = ()
    """The tokens, counted from 0, at which the head is read."""
    label: str = ""
    """What a model that labels texts says of the whole one; what `upto` and `without` of its tokens are about."""
    remark: str = ""
    """Beside a head: what the weights can tell of tokens, in a sentence."""


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


def following(
    model: Decoder | TransformerXL, h_NC: Tensor, tokenizer: TextTokenizer, targets: Sequence[int], count: int
) -> list[Row]:
    """What a model expects after each of these hidden states (N, C), and how it takes the target there."""
    rows: list[Row] = []
    for start in range(0, len(h_NC), ROWS):
        logits_RV = model.logits(h_NC[start : start + ROWS]).float()
        rows += expectations(logits_RV, tokenizer, targets[start : start + ROWS], count)
    return rows


def beside_head(
    body: Decoder | Encoder,
    h_NC: Tensor,
    tokenizer: TextTokenizer,
    ids: Sequence[int],
    starts: Sequence[int],
    count: int,
) -> tuple[dict[int, Row], str]:
    """By place: what the output layer expected of a model that has a head too; and a sentence on where it is from.

    h_NC: hidden states of sequences laid end to end, which begin at `starts`: nothing stands before the tokens there.
    """
    if isinstance(body, Encoder) or (body.head is None and not body.config.tied):
        return {}, LOST
    places = sorted(set(range(len(ids))) - set(starts))
    before = torch.tensor([place - 1 for place in places], dtype=torch.long, device=h_NC.device)
    rows = following(body, h_NC[before], tokenizer, [ids[place] for place in places], count)
    return dict(zip(places, rows, strict=True)), KEPT


def shown(tokenizer: TextTokenizer, ids: Sequence[int]) -> list[str]:
    """What each token shows; of a special one its name."""
    return [visible(tokenizer.token_bytes(token)) for token in ids]


def _named(tokenizer: TextTokenizer, token: int) -> str:
    """A token's text; an id that the vocabulary leaves out has none."""
    return visible(tokenizer.token_bytes(token)) if tokenizer.name_of(token) else ""
