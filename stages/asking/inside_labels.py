"""Inside a model that labels: what it says of a text or of each word, where it reads that, and where its body looks.

    logits = W h at the extract token: a decoder's last, an encoder's [CLS]; of each word at one of its own tokens

The text is written as the model was taught to read its task (`stages.data.labelled`); `=>`, or a line break, stands
between the texts of a pair, and between a question and its options. A pair that is read in both orders makes two
sequences, a question one for each option: they are shown one after another, and none looks at another. Where the output
layer of a decoder is still in the weights, it tells what it expected of each token. How the label of a text comes
about, token by token: `stages.asking.verdict`.
Shapes: N tokens of all sequences, S sequences, H heads, C width.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from stages.asking.attending import MOST_ATTENDED, attention_of
from stages.asking.expected import ARROW, Label, Reading, Score, Scored, beside_head, refuse_long, shown
from stages.asking.verdict import mask_of, up_to, without
from stages.data.labelled import Input, Writer, batch_of
from stages.data.tokenizer import TextTokenizer
from stages.data.tokens import tokens_of
from stages.measuring.assessment import Tensors
from stages.models.heads import load_classifier
from stages.store.errors import UserError

BETWEEN = re.compile(rf"\s*(?:{ARROW}|\n)\s*")
MOST_OPTIONS = 32
MOST_LABELS = 12
"""Labels that are told, the likeliest."""
NOTES = {"pair": f"{ARROW} between the two texts", "choice": f"{ARROW} before each option"}
"""By task: what a person is told who wrote one text alone."""


class Written(NamedTuple):
    """A text as the sequences that its task makes of it."""

    inputs: list[Input]
    shown: list[str]
    """What each token shows, of all sequences."""
    places: list[int]
    """Tokens at which words are labelled, those of words that are not seen left out."""
    own: list[int]
    """Tokens of the texts themselves, rather than of what frames them."""
    options: list[str]
    left_out: int


class InsideLabels:
    """A checkpoint of a model that labels, ready to be looked into."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.tokenizer = TextTokenizer.load(folder)
        self.model = load_classifier(folder, torch.float32, device)

    @property
    def layers(self) -> int:
        return self.model.config.layers

    @property
    def heads(self) -> int:
        return self.model.config.heads

    @torch.inference_mode()
    def score(self, text: str, count: int = 10) -> Score:
        """Every token, those at which the head is read with their labels; the head says which task.

        Raises UserError for a text of more than LONGEST characters, or more than MOST_OPTIONS options.
        """
        model, head = self.model, self.model.head
        written = self._write(text)
        batch = self._batch(written)
        h_NC = model.hidden_states(batch.tokens, batch.documents, batch.types)
        shares = model.answers(h_NC, batch.documents, batch.groups, batch.places).softmax(-1).tolist()
        ends = batch.documents[1:] - 1 if model.decodes else batch.documents[:-1]
        read_at = written.places if head.each_token else ends.tolist()
        names = written.options if head.task == "choice" else head.labels
        told = [_likeliest(names, row) for row in shares]
        said = dict(zip(read_at, told if head.each_token else told * len(read_at), strict=True))
        ids = batch.tokens[0].tolist()
        rows, remark = beside_head(model.body, h_NC, self.tokenizer, ids, batch.documents[:-1].tolist(), count)
        upto, apart = self._verdict(written, batch, h_NC)
        tokens = [
            (rows[at].at(piece, token) if at in rows else Scored(piece, token))._replace(
                labels=said.get(at, ()), upto=upto.get(at), without=apart.get(at)
            )
            for at, (piece, token) in enumerate(zip(written.shown, ids, strict=True))
        ]
        note = NOTES.get(head.task, "") if len(self._parts(text)) < 2 else ""
        if 0 < len(apart) < len(written.own):
            note = " · ".join(filter(None, (note, f"the first {len(apart):,} tokens masked in turn")))
        given = told[0][0].text if told and told[0] and not head.each_token else ""
        return Score(
            tokens, [], written.left_out, note=note, head=head.task, read_at=read_at, label=given, remark=remark
        )

    def _verdict(self, written: Written, batch: Tensors, h_NC: Tensor) -> tuple[dict[int, float], dict[int, float]]:
        """By place, `upto` and `without` of `Scored`: how the label of a text, not of words, comes about."""
        mask = mask_of(self.tokenizer)
        if self.model.head.each_token:
            return {}, {}
        if self.model.decodes:
            return dict(enumerate(up_to(self.model, h_NC, batch.documents))), {}
        if mask is None:
            return {}, {}
        return {}, without(self.model, h_NC, batch.documents, written.inputs, written.own, mask)

    @torch.inference_mode()
    def attention(self, text: str, layer: int) -> tuple[Reading, Tensor]:
        """All sequences' tokens, and how much each (row) looks at each (column) in every head: (H, N, N) fp32.

        Layers count from 0. Raises UserError for a layer that is not there.
        """
        written = self._write(text, MOST_ATTENDED)
        batch = self._batch(written)

        def read() -> Tensor:
            return self.model.hidden_states(batch.tokens, batch.documents, batch.types)

        weights_HNN = attention_of(self.model.body, layer, read, batch.documents)
        ids = batch.tokens[0].tolist()
        return Reading(ids, written.shown, 0, len(ids), written.left_out), weights_HNN

    def _parts(self, text: str) -> list[str]:
        """The texts of the task, as far as they are there."""
        task = self.model.head.task
        if task in ("classify", "tokens"):
            return [text]
        parts = BETWEEN.split(text.strip(), maxsplit=1 if task == "pair" else 0)
        if len(parts) > MOST_OPTIONS + 1:
            raise UserError(f"There are more than {MOST_OPTIONS} options.", "Leave some out.")
        return parts

    def _write(self, text: str, most: int | None = None) -> Written:
        """The text as its task has it: every sequence as long as the context, or about `most` tokens in all."""
        refuse_long(text)
        head, context = self.model.head, self.model.config.context
        first, *others = self._parts(text)
        if head.task in ("pair", "choice"):
            others = others or [""]
        alone = " ".join(first.split()) if head.each_token else first
        sequences: list[tuple[str, ...]] = [(first, other) for other in others] or [(alone,)]
        if head.both_orders:
            sequences.append((others[0], first))
        room = context if most is None else min(context, most // len(sequences))
        writer = Writer(self.tokenizer, head, room, encoder=not self.model.decodes)
        places: list[int] = []
        if head.each_token:
            written, places = writer.words(first.split())
            inputs = [written]
        else:
            (inputs,) = writer.inputs([[first, *others]])
        pieces, own, left_out = list[str](), list[int](), 0
        for one, texts in zip(inputs, sequences, strict=True):
            found, inner, cut = self._pieces(one, texts, writer)
            own += [len(pieces) + at for at in inner]
            pieces, left_out = pieces + found, left_out + cut
        return Written(inputs, pieces, [place for place in places if place >= 0], own, others, left_out)

    def _pieces(self, one: Input, texts: Sequence[str], writer: Writer) -> tuple[list[str], list[int], int]:
        """What the tokens of a sequence show, which are of its texts, and how many of those are left out."""
        marks = writer.marks
        end = [] if self.model.head.each_token and not marks.encoder else marks.end
        first = (one.second - len(marks.delimiter) if len(texts) > 1 else len(one.ids) - len(end)) - len(marks.start)
        kept = [first, len(one.ids) - len(end) - one.second]
        found, inner, cut = shown(self.tokenizer, marks.start), list[int](), 0
        for number, text in enumerate(texts):
            if number:
                found += shown(self.tokenizer, marks.delimiter)
            tokens = tokens_of(self.tokenizer, text)
            inner += range(len(found), len(found) + kept[number])
            found += [piece for _, piece, *_ in tokens[: kept[number]]]
            cut += len(tokens) - kept[number]
        return found + shown(self.tokenizer, end), inner, cut

    def _batch(self, written: Written) -> Tensors:
        return Tensors.of(batch_of(written.inputs, written.places), self.model.body.tokens.device)


def _likeliest(names: Sequence[str], shares: Sequence[float]) -> list[Label]:
    """The likeliest labels, those of the same probability in the model's order."""
    pairs = sorted(zip(names, shares, strict=True), key=lambda pair: -pair[1])
    return [Label(name, share) for name, share in pairs[:MOST_LABELS]]
