"""Span corruption for T5: spans of a text are hidden behind sentinels, and the model is asked for what they hid.

    text     Thank you for inviting me to your party last week .
    read     Thank you <0> me to your party <1> week . ⟨end⟩
    written  <0> for inviting <1> last ⟨end⟩

Of a text of L tokens round(share · L) are hidden, in round(hidden / mean length) spans; where they lie is drawn evenly
from all ways of cutting the hidden and the shown tokens into so many pieces, a shown piece first. Source: Raffel et
al., T5 (arXiv 1910.10683), section 3.1.4 and figure 2; the lengths as in the released code.
B texts, L tokens of a text, K spans.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from stages.data.tokenizer import TextTokenizer
from stages.store.errors import UserError

SENTINEL = "<extra_id_{}>"


class Lengths(NamedTuple):
    """Tokens of one corrupted text."""

    text: int
    hidden: int
    spans: int

    @property
    def read(self) -> int:
        """What is shown, a sentinel for each span, and the end."""
        return self.text - self.hidden + self.spans + 1

    @property
    def written(self) -> int:
        """What is hidden, a sentinel before each span, and the end."""
        return self.hidden + self.spans + 1


def lengths_of(text: int, share: float, mean: float) -> Lengths:
    """What becomes of a text of so many tokens, two at least. share: that is hidden. mean: tokens in a span."""
    if text < 2:
        raise ValueError(f"a text to be corrupted has two tokens at least, not {text}")
    hidden = min(max(round(text * share), 1), text - 1)
    spans = min(max(round(hidden / mean), 1), hidden, text - hidden)
    return Lengths(text, hidden, spans)


def text_for(room: int, share: float, mean: float) -> Lengths:
    """The longest text of which no more than `room` tokens are read; UserError when there is none."""
    found = None
    text = 2
    while (lengths := lengths_of(text, share, mean)).read <= room or text < room:
        found = lengths if lengths.read <= room else found
        text += 1
    if found is None:
        raise UserError(f"A context of {room} tokens is too short for hidden spans.", "Four tokens or more will do.")
    return found


@dataclass(frozen=True)
class Sentinels:
    """What corruption needs of a tokenizer: the tokens that stand for spans, in their order, and the end of text."""

    ids: Tensor
    end: int

    @classmethod
    def of(cls, tokenizer: TextTokenizer) -> Sentinels:
        """Read them off a tokenizer. UserError when it has none."""
        ids: list[int] = []
        while (found := tokenizer.id_of(SENTINEL.format(len(ids)))) is not None:
            ids.append(found)
        if not ids:
            raise UserError(
                "The tokenizer has no sentinels <extra_id_0>, <extra_id_1> … for hidden spans.",
                "Train one with them: `workbench tokenizer train --set sentinels=100`.",
            )
        return cls(torch.tensor(ids), tokenizer.eos_id)

    def check(self, lengths: Lengths) -> None:
        """Raise UserError when a text has more spans than there are sentinels."""
        if lengths.spans > len(self.ids):
            raise UserError(
                f"A text of {lengths.text:,} tokens has {lengths.spans} hidden spans, and the tokenizer has "
                f"{len(self.ids)} sentinels.",
                "Choose a smaller context or share, longer spans, or a tokenizer with more sentinels.",
            )


def hidden_places(count: int, lengths: Lengths, generator: torch.Generator | None = None) -> Tensor:
    """Which tokens of `count` texts are hidden: (count, L) bool, spans drawn as the head of this file says."""
    hidden_BK = _pieces(count, lengths.hidden, lengths.spans, generator)
    shown_BK = _pieces(count, lengths.text - lengths.hidden, lengths.spans, generator)
    both_BK = torch.stack((shown_BK, hidden_BK), 2).flatten(1)
    ends_BK = both_BK.cumsum(1)
    places_BL = torch.arange(lengths.text).expand(count, -1).contiguous()
    return torch.searchsorted(ends_BK, places_BL, right=True) % 2 == 1


def corrupted(tokens_BL: Tensor, hidden_BL: Tensor, sentinels: Sentinels) -> tuple[Tensor, Tensor]:
    """What is read and what is to be written of texts (B, L): (B, read) and (B, written), both with the end of text.

    Every row hides equally many tokens in equally many spans, as `hidden_places` makes them.
    """
    read_BS = _with_sentinels(tokens_BL, hidden_BL, sentinels)
    written_BT = _with_sentinels(tokens_BL, ~hidden_BL, sentinels)
    return read_BS, written_BT


def _pieces(count: int, tokens: int, pieces: int, generator: torch.Generator | None) -> Tensor:
    """Lengths (count, pieces), one at least, that add up to `tokens`; every such cut is equally likely."""
    draws = torch.rand(count, tokens - 1, generator=generator)
    cuts = draws.argsort(1)[:, : pieces - 1].sort(1).values + 1
    edges = (torch.zeros(count, 1, dtype=torch.long), cuts, torch.full((count, 1), tokens))
    return torch.cat(edges, 1).diff(dim=1)


def _with_sentinels(tokens_BL: Tensor, gone_BL: Tensor, sentinels: Sentinels) -> Tensor:
    """The tokens that are not gone, each run of those that are replaced by the next sentinel, then the end of text."""
    before_BL = torch.cat((torch.zeros_like(gone_BL[:, :1]), gone_BL[:, :-1]), 1)
    first_BL = gone_BL & ~before_BL
    marks_BL = sentinels.ids[(first_BL.cumsum(1) - 1).clamp(min=0)]
    kept_BS = torch.where(first_BL, marks_BL, tokens_BL)[~gone_BL | first_BL].view(len(tokens_BL), -1)
    return torch.cat((kept_BS, torch.full((len(kept_BS), 1), sentinels.end)), 1)
