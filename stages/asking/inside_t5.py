"""Inside an encoder-decoder: how likely it finds what is written to a text, and where both of its stacks look.

    reads => writes   log p(y_t | y_<t, x): each token written, after those before it and all that is read
    a text alone      log p(x_t | x_1 … <0> … x_T): each token hidden behind a sentinel in turn, and asked for first;
                      of a model tuned for a task, and of a text with blanks: what it writes itself, the likeliest
                      token each time
    A = softmax(q kᵀ + b)   of each head of a layer: what is read looks both ways at itself; what is written looks at
                            itself and before, and once more, without b, at all that is read

A blank, ___, is a sentinel on either side: `The opposite of ___ is cold. => ___ hot`. A row of a token read sums to
1, and a row of one that is written to 2. Source: Raffel et al., Exploring the Limits of Transfer Learning (arXiv
1910.10683), section 2.1; hiding in turn as Salazar et al. (1910.14659) do with BERT.
Shapes: S tokens read, T tokens written, H heads, B texts at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from stages.asking.attending import MOST_ATTENDED, refuse_layer
from stages.asking.expected import ARROW, Reading, Row, Score, expectations, refuse_long
from stages.asking.filled import BLANK
from stages.asking.text_to_text import write
from stages.data.corruption import SENTINEL, Sentinels
from stages.data.tokenizer import TextTokenizer
from stages.data.tokens import Token, tokens_of, visible
from stages.generate import Sampling
from stages.models.t5 import KeysValues, Layer, load_t5, prefixes_in
from stages.store.errors import UserError

MOST_WRITTEN = 64
"""Tokens that a model writes itself."""
AT_ONCE = 4_096
"""Tokens that are read in one batch, a text for each hidden token."""


class Piece(NamedTuple):
    """Tokens and what each shows."""

    ids: list[int]
    shown: list[str]


class Given(NamedTuple):
    """What stands on either side of the arrow, in tokens, as many as fit. written: None without an arrow."""

    read: Piece
    written: Piece | None
    left_out: int


class InsideT5:
    """A checkpoint of an encoder-decoder, ready to be looked into."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.tokenizer = TextTokenizer.load(folder)
        self.model = load_t5(folder, torch.float32, device)
        self._prefixes = list(prefixes_in(folder).values())
        self._sentinels = {token for token in self.tokenizer.special_ids if _is_sentinel(self.tokenizer.name_of(token))}
        self._end = Piece([self.tokenizer.eos_id], [self.tokenizer.name_of(self.tokenizer.eos_id)])
        self._start = Piece([self.tokenizer.pad_id], [self.tokenizer.name_of(self.tokenizer.pad_id)])

    @property
    def layers(self) -> int:
        return max(len(self.model.encoder_blocks), len(self.model.decoder_blocks))

    @property
    def heads(self) -> int:
        return self.model.config.heads

    @torch.inference_mode()
    def score(self, text: str, count: int = 10) -> Score:
        """Every token with its log-probability and the `count` likeliest at its place; the head says which tokens.

        Raises UserError for a text without tokens, one that is too long, and where the tokenizer cannot hide tokens.
        """
        given = self._given(text, self.model.config.context)
        if given.written is not None:
            return self._written(given, given.written, count, "")
        if self._answers(given.read):
            return self._written(given, self._own(given.read), count, f"its own answer; {ARROW} before yours")
        return self._hidden(given, count)

    @torch.inference_mode()
    def attention(self, text: str, layer: int) -> tuple[Reading, Tensor]:
        """The tokens read and then those written, and how much each (row) looks at each (column): (H, S+T, S+T) fp32.

        A stack of fewer layers has no weights in a layer that it lacks. Layers count from 0; UserError for one that is
        not there.
        """
        refuse_layer(layer, self.layers)
        given = self._given(text, min(MOST_ATTENDED // 2, self.model.config.context))
        written = given.written
        if written is None and self._answers(given.read):
            written = self._own(given.read)
        read = _joined(given.read, self._end)
        shown = read if written is None else _joined(_joined(read, self._start), written)
        first = 0 if written is None else len(read.ids) + 1
        rows = self._weights(read.ids, [] if written is None else [*self._start.ids, *written.ids], layer)
        stop = len(given.read.ids) if written is None else len(shown.ids)
        return Reading(shown.ids, shown.shown, first, stop, given.left_out), rows.cpu()

    def _answers(self, read: Piece) -> bool:
        """Whether the model is to answer by itself: it was tuned to, or what it reads has blanks."""
        return bool(self._prefixes) or not self._sentinels.isdisjoint(read.ids)

    def _given(self, text: str, room: int) -> Given:
        """Both sides of the arrow, each cut to `room` with its frame; a task's prefix is put before what is read."""
        refuse_long(text)
        before, arrow, after = text.partition(ARROW)
        before = before.rstrip(" ") if arrow else before
        if len(self._prefixes) == 1 and not before.startswith(self._prefixes[0]):
            before = self._prefixes[0] + before
        read, without = self._cut(before, room)
        if not arrow:
            return Given(read, None, without)
        written, cut = self._cut(after.removeprefix(" "), room)
        return Given(read, written, without + cut)

    def _cut(self, text: str, room: int) -> tuple[Piece, int]:
        """A text's tokens, as many as fit beside one more, and how many are left out."""
        found = self._tokens(text)
        kept = found[: room - 1]
        return Piece([token for token, *_ in kept], [shown for _, shown, *_ in kept]), len(found) - len(kept)

    def _tokens(self, text: str) -> list[Token]:
        """A text's tokens, its blanks as sentinels in their order; as text where the tokenizer has none."""
        if not self._sentinels:
            return tokens_of(self.tokenizer, text)
        first, *others = BLANK.split(text)
        found = tokens_of(self.tokenizer, first)
        for number, part in enumerate(others):
            mark = self.tokenizer.id_of(name := SENTINEL.format(number))
            if mark is None:
                raise UserError(f"The text has more blanks than the {number} that the model can tell apart.")
            found += [(mark, name, True, 0), *tokens_of(self.tokenizer, part)]
        return found

    def _own(self, read: Piece) -> Piece:
        """What the model writes itself, the likeliest token each time, with the end where it reaches it."""
        greedy = Sampling(temperature=0, max_new_tokens=min(MOST_WRITTEN, self.model.config.context - 1))
        prompt = [*read.ids, *self._end.ids]
        (ids,) = write(self.model, [prompt], greedy, start=self.tokenizer.pad_id, ends=self._end.ids)
        own = Piece(ids, [visible(self.tokenizer.token_bytes(token)) for token in ids])
        return _joined(own, self._end) if len(ids) < greedy.max_new_tokens else own

    def _written(self, given: Given, written: Piece, count: int, note: str) -> Score:
        """What is written, each token after those before it."""
        read_1S = self._row([*given.read.ids, *self._end.ids])
        h_1TC = self.model.hidden_states(read_1S, self._row([*self._start.ids, *written.ids]))
        targets = [*written.ids, self.tokenizer.eos_id]  # nothing stands at the last place
        rows = expectations(self.model.logits(h_1TC[0]).float(), self.tokenizer, targets, count)
        tokens = [row.at(name, token) for name, token, row in zip(written.shown, written.ids, rows, strict=False)]
        return Score(tokens, rows[-1].top, given.left_out, note=note)

    def _hidden(self, given: Given, count: int) -> Score:
        """What is read, each token hidden in turn behind the first sentinel, and asked for after it."""
        ids = given.read.ids
        if not ids:
            raise UserError("There is no token in the text.", "Write something.")
        sentinel = int(Sentinels.of(self.tokenizer).ids[0])
        rows: list[Row] = []
        at_once = max(1, AT_ONCE // len(ids))
        for start in range(0, len(ids), at_once):
            places = range(start, min(start + at_once, len(ids)))
            read_BS = self._row([*ids, *self._end.ids]).repeat(len(places), 1)
            read_BS[range(len(places)), places] = sentinel
            begun_BT = self._row([*self._start.ids, sentinel]).repeat(len(places), 1)
            h_BTC = self.model.hidden_states(read_BS, begun_BT)
            logits_BV = self.model.logits(h_BTC[:, -1]).float()
            rows += expectations(logits_BV, self.tokenizer, [ids[place] for place in places], count)
        tokens = [row.at(name, token) for name, token, row in zip(given.read.shown, ids, rows, strict=True)]
        return Score(tokens, [], given.left_out, hides=True, note=f"___ for a blank, {ARROW} before what it writes")

    def _weights(self, read: Sequence[int], written: Sequence[int], layer: int) -> Tensor:
        """(H, S+T, S+T): the encoder's weights above, the decoder's at what is read and at itself below."""
        S, T = len(read), len(written)
        all_HNN = torch.zeros(self.heads, S + T, S + T, device=self.model.tokens.device)
        looked: dict[bool, tuple[Tensor, Tensor | None]] = {}

        def look(block: Layer, given: tuple[Tensor, Tensor, Tensor | None, KeysValues | None]) -> None:
            looked[block.writes] = weights(block, *given[:2], given[3] if len(given) > 3 else None)

        stacks = (self.model.encoder_blocks, self.model.decoder_blocks)
        hooks = [stack[layer].register_forward_pre_hook(look) for stack in stacks if layer < len(stack)]
        try:
            self.model.hidden_states(self._row(read), self._row(written or self._start.ids))
        finally:
            for hook in hooks:
                hook.remove()
        if False in looked:
            all_HNN[:, :S, :S] = looked[False][0]
        if True in looked and written:
            own_HTT, cross_HTS = looked[True]
            assert cross_HTS is not None
            all_HNN[:, S:, S:], all_HNN[:, S:, :S] = own_HTT, cross_HTS
        return all_HNN

    def _row(self, ids: Sequence[int]) -> Tensor:
        return torch.tensor([list(ids)], device=self.model.tokens.device)


def weights(block: Layer, h_1TC: Tensor, bias_1HTT: Tensor, read: KeysValues | None) -> tuple[Tensor, Tensor | None]:
    """What a block looks at in its own text, (H, T, T) fp32, and, if it writes, in what was read, (H, T, S)."""
    q, k, v = block.split_heads(block.attention_in(block.norm_1(h_1TC)), 3)
    scores_HTT = (q[0] @ k[0].transpose(1, 2) + bias_1HTT[0]).float()
    if block.writes:
        T = h_1TC.shape[1]
        scores_HTT = scores_HTT.masked_fill(torch.ones(T, T, dtype=torch.bool, device=q.device).triu(1), -torch.inf)
    own_HTT = scores_HTT.softmax(-1)
    if read is None:
        return own_HTT, None
    seen_1TC = (own_HTT.to(v.dtype) @ v[0]).transpose(0, 1).flatten(1)[None]
    (q,) = block.split_heads(block.cross_in(block.cross_norm(h_1TC + block.attention_out(seen_1TC))), 1)
    return own_HTT, (q[0] @ read[0][0].transpose(1, 2)).float().softmax(-1)


def _is_sentinel(name: str) -> bool:
    return name.startswith(SENTINEL.split("{")[0])


def _joined(first: Piece, second: Piece) -> Piece:
    return Piece(first.ids + second.ids, first.shown + second.shown)
