"""Inside a reward model: its score had the text ended at each token, and where its decoder looks.

    r_t = w · h_t        a reward model is trained to be read at the last token of an answer alone: what stands before
                         shows how it comes to its judgement, from left to right

`question => answer` is a conversation, written by the model's template and read up to where the answer ends, as
`stages.measuring.scorer` does; without the arrow the text stands by itself. Where the output layer is tied to the token
embedding it is still in the weights, and tells what it expected of each token. The value model that PPO keeps in
`value/` of its checkpoints is one too, with the policy's tokenizer and template: its scores are its values.
Shapes: T tokens, C width, H heads.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from stages.asking.attending import MOST_ATTENDED, attention_of
from stages.asking.expected import ARROW, Reading, Score, Scored, beside_head, refuse_long, shown
from stages.data.conversations import Masker
from stages.data.tokenizer import FILE as TOKENIZER
from stages.data.tokenizer import TextTokenizer
from stages.data.tokens import tokens_of
from stages.measuring.scorer import answer_ids
from stages.models.value import load_value_model
from stages.store.records import Message
from stages.store.rewards import read_scale


class InsideReward:
    """A checkpoint of a reward model, ready to be looked into."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.scale = read_scale(folder)
        self._written_by = folder if (folder / TOKENIZER).is_file() else folder.parent
        self.tokenizer = TextTokenizer.load(self._written_by)
        self.model = load_value_model(folder, torch.float32, device)

    @property
    def layers(self) -> int:
        return self.model.config.layers

    @property
    def heads(self) -> int:
        return self.model.config.heads

    @torch.inference_mode()
    def score(self, text: str, count: int = 10) -> Score:
        """Every token with the score of the text up to it; with what was expected of it too, where that can be told.

        Raises UserError for a text of more than LONGEST characters, or a conversation that the template refuses.
        """
        reading = self._read(text, self.model.config.context)
        h_TC = self.model.decoder.hidden_states(self._row(reading))
        raw_T = functional.linear(h_TC.float(), self.model.score.float())[:, 0].tolist()
        rows, remark = beside_head(self.model.decoder, h_TC, self.tokenizer, reading.ids, [0], count)
        tokens = []
        for at in range(reading.first, reading.stop):
            token = Scored(reading.shown[at], reading.ids[at])
            token = rows[at].at(token.text, token.id) if at in rows else token
            tokens.append(token._replace(score=self.scale.normal(raw_T[at]), raw=raw_T[at]))
        note = "" if ARROW in text else f"{ARROW} between question and answer"
        read_at = [len(tokens) - 1] if tokens else []
        return Score(tokens, [], reading.left_out, note=note, head="reward", read_at=read_at, remark=remark)

    @torch.inference_mode()
    def attention(self, text: str, layer: int) -> tuple[Reading, Tensor]:
        """The text's tokens, and how much each (row) looks at each (column) in every head of a layer: (H, T, T) fp32.

        Layers count from 0. Raises UserError for a layer that is not there.
        """
        reading = self._read(text, min(MOST_ATTENDED, self.model.config.context))
        decoder = self.model.decoder
        return reading, attention_of(decoder, layer, lambda: decoder.hidden_states(self._row(reading)))

    def _read(self, text: str, most: int) -> Reading:
        """A conversation, or a text after the start of one, of which `most` tokens are kept."""
        refuse_long(text)
        question, arrow, answer = text.partition(ARROW)
        if not arrow:
            start = self.tokenizer.start_ids or [self.tokenizer.eos_id]
            found = tokens_of(self.tokenizer, text)
            ids = [*start, *(token for token, *_ in found)]
            names = [*shown(self.tokenizer, start), *(piece for _, piece, *_ in found)]
            first = len(start)
        else:
            with Masker(self._written_by, turns="last") as masker:
                said = masker.mask([Message("user", question.strip()), Message("assistant", answer.strip())])
            ids, first = answer_ids(said.ids, said.trained), 0
            names = shown(self.tokenizer, ids)
        return Reading(ids[:most], names[:most], first, min(most, len(ids)), max(0, len(ids) - most))

    def _row(self, reading: Reading) -> Tensor:
        return torch.tensor([reading.ids], device=self.model.score.device)
