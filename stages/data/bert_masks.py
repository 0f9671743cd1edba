"""Masks for BERT: which tokens of a text a model is asked about, and what it sees in their place.

Of a text's tokens a share is asked about. In BERT's recipe 80 % of those are shown as [MASK], 10 % as a token drawn at
random, and 10 % as they are. Source: Devlin et al., BERT (arXiv 1810.04805), section 3.1; whole words: the authors'
later release.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stages.data.tokenizer import TextTokenizer
from stages.store.errors import UserError

MASKS = ("[MASK]", "<mask>")
STARTS = ("[CLS]", "<s>")
ENDS = ("[SEP]", "</s>")

MASKED, REPLACED = 0.8, 0.1
"""Shares of BERT's recipe."""

IGNORED = -100


@dataclass(frozen=True)
class Blanks:
    """What masking needs of a tokenizer."""

    mask: int
    start: int
    end: int
    ordinary: Tensor
    """Ids that may stand in a token's place (ids,) int64: those that are not special."""
    special: Tensor
    """Whether an id is special, and so never asked about: (V,) bool."""
    inner: Tensor
    """Whether an id goes on with the word before it: (V,) bool."""

    @classmethod
    def of(cls, tokenizer: TextTokenizer) -> Blanks:
        """Read them off a tokenizer. UserError when it has no token that masks."""
        mask, start, end = (_first(tokenizer, names) for names in (MASKS, STARTS, ENDS))
        if mask is None:
            raise UserError(
                "The tokenizer has no token that masks.",
                "Train one with it: `workbench tokenizer train --type wordpiece`.",
            )
        special = torch.zeros(tokenizer.vocab_size, dtype=torch.bool)
        special[sorted(tokenizer.special_ids)] = True
        names = [tokenizer.name_of(token) for token in range(tokenizer.vocab_size)]
        spaced = any(name.startswith(("Ġ", "▁")) for name in names)
        inner = [not name.startswith(("Ġ", "▁")) if spaced else name.startswith("##") for name in names]
        end_of_text = tokenizer.eos_id
        return cls(
            mask=mask,
            start=end_of_text if start is None else start,
            end=end_of_text if end is None else end,
            ordinary=torch.nonzero(~special)[:, 0],
            special=special,
            inner=torch.tensor(inner) & ~special,
        )

    def framed(self, tokens_BT: Tensor) -> Tensor:
        """The texts with the tokens that begin and end one: (B, T + 2)."""
        start_B1, end_B1 = (torch.full((len(tokens_BT), 1), token) for token in (self.start, self.end))
        return torch.cat((start_B1, tokens_BT, end_B1), 1)


def masked(
    tokens_BT: Tensor,
    blanks: Blanks,
    *,
    share: float,
    recipe: str = "bert",
    whole_words: bool = False,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """What the model sees (B, T), and what it is asked (B, T): the token where it is asked, −100 elsewhere.

    Each token, or each word, is asked about with probability `share`, independently of the others; special ones never.
    recipe: "bert", or "all", which masks whatever is asked about.
    """
    shape = tokens_BT.shape
    draws_BT = torch.rand(shape, generator=generator)
    if whole_words:
        draws_BT = _of_the_first(draws_BT, blanks.inner[tokens_BT])
    asked_BT = (draws_BT < share) & ~blanks.special[tokens_BT]
    targets_BT = tokens_BT.masked_fill(~asked_BT, IGNORED)
    fate_BT = torch.rand(shape, generator=generator)
    others_BT = blanks.ordinary[torch.randint(len(blanks.ordinary), shape, generator=generator)]
    hidden_BT = asked_BT & (fate_BT < (MASKED if recipe == "bert" else 1.0))
    replaced_BT = asked_BT & ~hidden_BT & (fate_BT < MASKED + REPLACED)
    seen_BT = torch.where(replaced_BT, others_BT, tokens_BT).masked_fill(hidden_BT, blanks.mask)
    return seen_BT, targets_BT


def _of_the_first(draws_BT: Tensor, inner_BT: Tensor) -> Tensor:
    """The draws, each piece inside a word with that of the word's first piece."""
    places_T = torch.arange(draws_BT.shape[1]).expand(draws_BT.shape)
    firsts_BT = places_T.masked_fill(inner_BT, 0).cummax(1).values
    return draws_BT.gather(1, firsts_BT)


def _first(tokenizer: TextTokenizer, names: tuple[str, ...]) -> int | None:
    return next((token for name in names if (token := tokenizer.id_of(name)) is not None), None)
