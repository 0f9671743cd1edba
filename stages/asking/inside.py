"""Inside a language model: how likely it finds each token of a text, what it expected there, and where it looks.

    log p(x_t | x_<t)                 a decoder: each token after those before it, the first after the start of a text
    log p(x_t | x_1 … [MASK] … x_T)   an encoder: each token hidden in turn; their sum is the pseudo-log-likelihood

Attention is `stages.asking.attending`; encoder-decoders and models with another head: `inside_t5`, `inside_reward`,
`inside_labels`. Sources: Radford et al., Language Models are Unsupervised Multitask Learners (2019); Salazar et al.,
Masked Language Model Scoring (1910.14659), equation 1.
Shapes: T tokens, V vocabulary, H heads. Verbs of the desk, which open every kind, stand at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stages.asking.attending import MOST_ATTENDED, attention_of
from stages.asking.expected import Reading, Row, Score, expectations, following, refuse_long
from stages.asking.inside_labels import InsideLabels
from stages.asking.inside_reward import InsideReward
from stages.asking.inside_t5 import InsideT5
from stages.data.bert_masks import Blanks
from stages.data.tokenizer import TextTokenizer
from stages.data.tokens import tokens_of
from stages.desk import Job
from stages.models.bases import base_folder
from stages.models.decoder import Decoder
from stages.models.encoder import Encoder, load_encoder
from stages.models.hf_config import head_of, read_any_config
from stages.models.opening import open_decoder
from stages.models.transformer_xl import TransformerXL, load_transformer_xl
from stages.store.checkpoints import resolve_checkpoint, verify
from stages.store.errors import UserError

SEGMENTS = 16
"""Segments of a text that a Transformer-XL reads, each as long as its context."""


class Inside:
    """A checkpoint of a decoder, an encoder or a Transformer-XL, ready to be looked into."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.tokenizer = TextTokenizer.load(folder)
        self.model = _model(folder, device)
        self._blanks = Blanks.of(self.tokenizer) if isinstance(self.model, Encoder) else None

    @property
    def hides(self) -> bool:
        """Whether each token is hidden in turn, rather than told from what stands before it."""
        return self._blanks is not None

    @property
    def layers(self) -> int:
        """Blocks that attend."""
        return self.model.config.layers

    @property
    def heads(self) -> int:
        """Heads of each block."""
        return self.model.config.heads

    def read(self, text: str, most: int | None = None) -> Reading:
        """The text's tokens in their frame, as many as fit the context, and no more than `most` with the frame."""
        refuse_long(text)
        start = [self._blanks.start] if self._blanks else self.tokenizer.start_ids or [self.tokenizer.eos_id]
        end = [self._blanks.end] if self._blanks else []
        found = tokens_of(self.tokenizer, text)
        context = self.model.config.context * (SEGMENTS if isinstance(self.model, TransformerXL) else 1)
        room = min(most or context, context) - len(start) - len(end)
        kept = found[: max(0, room)]
        names = [self.tokenizer.name_of(token) for token in start], [self.tokenizer.name_of(token) for token in end]
        return Reading(
            ids=[*start, *(token for token, *_ in kept), *end],
            shown=[*names[0], *(shown for _, shown, *_ in kept), *names[1]],
            first=len(start),
            stop=len(start) + len(kept),
            left_out=len(found) - len(kept),
        )

    @torch.inference_mode()
    def score(self, text: str, count: int = 10) -> Score:
        """Every token of a text with its log-probability and the `count` likeliest tokens at its place.

        Raises UserError for a text without tokens, or of more than LONGEST characters.
        """
        reading = self.read(text)
        if reading.first == reading.stop and self._blanks:
            raise UserError("There is no token in the text.", "Write something.")
        if self._blanks is None:
            places = range(reading.first - 1, reading.stop)
            rows = self._after(reading, places, count)
        else:
            rows = self._hidden(reading, count)
        tokens = [
            row.at(reading.shown[at], reading.ids[at])
            for at, row in zip(range(reading.first, reading.stop), rows, strict=False)  # a decoder has one row more
        ]
        following = rows[-1].top if self._blanks is None else []
        return Score(tokens, following, reading.left_out, self.hides)

    @torch.inference_mode()
    def attention(self, text: str, layer: int) -> tuple[Reading, Tensor]:
        """The text's tokens, and how much each (row) looks at each (column) in every head of a layer: (H, T, T) fp32.

        Layers count from 0. Raises UserError for a layer that is not there.
        """
        reading = self.read(text, min(MOST_ATTENDED, self.model.config.context))
        return reading, attention_of(self.model, layer, lambda: self._hidden_states(reading.ids))

    def _hidden_states(self, ids: Sequence[int]) -> Tensor:
        """(T, C) of one text; a Transformer-XL reads it segment by segment."""
        tokens_1T = torch.tensor([ids], device=self.model.tokens.device)
        if not isinstance(self.model, TransformerXL):
            return self.model.hidden_states(tokens_1T)
        memory, parts = self.model.empty_memory(1), []
        for part_1T in tokens_1T.split(self.model.config.context, 1):
            h_NC, memory = self.model.hidden_states(part_1T, memory)
            parts.append(h_NC)
        return torch.cat(parts)

    def _after(self, reading: Reading, places: range, count: int) -> list[Row]:
        """What follows each of these places of a decoder's text."""
        assert not isinstance(self.model, Encoder)
        h_TC = self._hidden_states(reading.ids)[places.start : places.stop]
        targets = [*reading.ids[places.start + 1 :], self.tokenizer.eos_id]  # nothing stands at the last place
        return following(self.model, h_TC, self.tokenizer, targets, count)

    def _hidden(self, reading: Reading, count: int) -> list[Row]:
        """What an encoder would put in each place of the text when that place is hidden from it."""
        assert self._blanks is not None and isinstance(self.model, Encoder)
        rows: list[Row] = []
        at_once = max(1, 8_192 // len(reading.ids))
        for start in range(reading.first, reading.stop, at_once):
            places = range(start, min(start + at_once, reading.stop))
            tokens_BT = torch.tensor(reading.ids, device=self.model.tokens.device).repeat(len(places), 1)
            lines = torch.arange(len(places), device=tokens_BT.device)
            columns = torch.tensor(places, device=tokens_BT.device)
            tokens_BT[lines, columns] = self._blanks.mask
            h_NC = self.model.hidden_states(tokens_BT)
            logits_BV = self.model.logits(h_NC.view(len(places), len(reading.ids), -1)[lines, columns]).float()
            rows += expectations(logits_BV, self.tokenizer, [reading.ids[place] for place in places], count)
        return rows


def _model(folder: Path, device: str) -> Decoder | Encoder | TransformerXL:
    """The model of a folder in evaluation mode, in fp32. UserError for a kind that is not looked into."""
    kind = read_any_config(base_folder(folder)).kind
    if kind == "encoder":
        return load_encoder(folder, torch.float32, device)
    if kind == "recurrent decoder":
        return load_transformer_xl(folder, torch.float32, device)
    return open_decoder(folder, torch.float32, device)


Looked = Inside | InsideT5 | InsideReward | InsideLabels
"""What looks into a checkpoint, by its kind."""


def open_inside(folder: Path) -> Looked:
    """The checkpoint in a folder, whatever its kind. UserError for one without weights, or that cannot be read."""
    base = base_folder(folder)
    kind, head = read_any_config(base).kind, head_of(base)
    if kind == "encoder-decoder":
        return InsideT5(folder)
    if head:
        return InsideReward(folder) if head == "reward" else InsideLabels(folder)
    return Inside(folder)


@lru_cache(maxsize=2)
def _opened(folder: Path, written: int) -> Looked:
    verify(folder)
    return open_inside(folder)


def _open(job: Job, checkpoint: str) -> Looked:
    """The checkpoint, which stays in memory for the next question while its files stay as they are."""
    folder = resolve_checkpoint(job.workspace, checkpoint).path
    job.check()
    return _opened(folder, max((path.stat().st_mtime_ns for path in folder.iterdir()), default=0))


def score(job: Job, checkpoint: str, text: str, count: int = 10) -> dict[str, Any]:
    """{layers, heads, and the fields of `expected.Score`, their tokens with those of `expected.Scored`}."""
    inside = _open(job, checkpoint)
    return {"layers": inside.layers, "heads": inside.heads, **_plain(inside.score(text, count))}


def attention(job: Job, checkpoint: str, text: str, layer: int, head: int) -> dict[str, Any]:
    """{tokens: [text], first, weights: [[…]], left_out}; layer and head count from 0, the text begins at token `first`.

    A row of weights is a token that looks, its columns those it looks at.
    """
    inside = _open(job, checkpoint)
    if not 0 <= head < inside.heads:
        raise UserError(f"There is no head {head + 1}.", f"The model has {inside.heads} in each layer.")
    reading, weights_HTT = inside.attention(text, layer)
    rows = [[round(weight, 4) for weight in row] for row in weights_HTT[head].tolist()]
    return {"tokens": reading.shown, "first": reading.first, "weights": rows, "left_out": reading.left_out}


def _plain(found: Any) -> Any:
    """Named tuples as objects by their fields, all through."""
    if isinstance(found, tuple) and hasattr(found, "_asdict"):
        return {name: _plain(value) for name, value in found._asdict().items()}
    return [_plain(each) for each in found] if isinstance(found, list | tuple) else found
