"""Filling blanks: a text with ___ in it, and what BERT would put there, a token each; T5: `stages.asking.spans`."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from stages.asking.filled import BLANK, Candidate, Filled
from stages.asking.spans import fill_spans
from stages.data.bert_masks import Blanks
from stages.data.tokenizer import TextTokenizer
from stages.desk import Job
from stages.models.encoder import Encoder, load_encoder
from stages.models.hf_config import read_any_config
from stages.models.t5 import T5, load_t5
from stages.store.checkpoints import resolve_checkpoint
from stages.store.errors import UserError


class Filler:
    """A checkpoint of BERT or T5, ready to fill blanks."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.model: Encoder | T5
        if read_any_config(folder).kind == "encoder-decoder":
            self.model = load_t5(folder, torch.float32, device)
        else:
            self.model = load_encoder(folder, torch.float32, device)
        self.tokenizer = TextTokenizer.load(folder)

    def fill(self, text: str, count: int = 5) -> Filled:
        """As `fill_text` or `fill_spans`, the whole answer."""
        if isinstance(self.model, T5):
            return fill_spans(self.model, self.tokenizer, text, count)
        return fill_text(self.model, self.tokenizer, text, count)


@torch.inference_mode()
def fill_text(model: Encoder, tokenizer: TextTokenizer, text: str, count: int = 5) -> Filled:
    """Fill every blank of `text`, each by itself with the others still blank; `count` candidates for each.

    Raises UserError when there is no blank, or the text is longer than the model sees.
    """
    blanks = Blanks.of(tokenizer)
    parts = BLANK.split(text)
    if len(parts) == 1:
        raise UserError("There is no blank in the text.", "Write ___ or [MASK] where one is.")
    ids: list[int] = [blanks.start]
    for number, part in enumerate(parts):
        ids += ([blanks.mask] if number else []) + tokenizer.encode(part)
    ids.append(blanks.end)
    if len(ids) > model.config.context:
        raise UserError(f"The text has {len(ids):,} tokens, and the model sees {model.config.context:,}.")
    tokens_1T = torch.tensor([ids], device=model.tokens.device)
    places_M = torch.nonzero(tokens_1T[0] == blanks.mask)[:, 0]
    logits_MV = model.logits(model.hidden_states(tokens_1T)[places_M]).float()
    logits_MV = logits_MV[:, : len(blanks.special)]  # a model may have rows that no token stands for
    logits_MV[:, blanks.special.to(logits_MV.device)] = -torch.inf
    found = logits_MV.softmax(-1).topk(min(count, len(blanks.ordinary)))
    candidates = [
        [
            Candidate(tokenizer.token_bytes(token).decode(errors="replace").strip(), share)
            for token, share in zip(*row, strict=True)
        ]
        for row in zip(found.indices.tolist(), found.values.tolist(), strict=True)
    ]
    whole = parts[0] + "".join(row[0].text + part for row, part in zip(candidates, parts[1:], strict=True))
    return Filled(whole, candidates)


@lru_cache(maxsize=2)
def _opened(folder: str, digest: str) -> Filler:
    return Filler(Path(folder))


def of(job: Job, checkpoint: str, text: str, count: int = 5) -> dict[str, Any]:
    """A desk verb: {text, blanks: [[{text, probability}]]}. The model stays in memory for the next question."""
    found = resolve_checkpoint(job.workspace, checkpoint)
    job.check()
    filled = _opened(str(found.path), found.digest()).fill(text, count)
    return {"text": filled.text, "blanks": [[candidate._asdict() for candidate in row] for row in filled.blanks]}
