"""Scoring with a reward model: any answer to any conversation, as text or as tokens.

A score is read at the last token that belongs to the answer, the end of its turn or text included. Raw scores are on
the scale of log-odds: by the model, a is preferred to b with probability σ(r_a − r_b). Normalised ones have mean 0 and
standard deviation 1 on the reference samples that the checkpoint names, as in Huang et al., The N+ Implementation
Details of RLHF with PPO (arXiv 2403.17031), detail 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from stages.data.conversations import Conversation, Masker, choose_template
from stages.data.tokenizer import FILE as TOKENIZER
from stages.data.tokenizer import TextTokenizer
from stages.models.bases import base_folder
from stages.models.value import load_value_model
from stages.store.errors import UserError
from stages.store.files import sha256_file
from stages.store.records import Message
from stages.store.rewards import read_scale
from stages.training.precision import choose_precision

BATCH_TOKENS = 16_384
"""Tokens that are scored at once, padding included."""


class Score(NamedTuple):
    """Of one answer."""

    raw: float
    normal: float


class Scorer:
    """The reward model of a checkpoint at work. A context manager: its template may hold a child process."""

    def __init__(self, folder: Path, device: torch.device | str = "cpu", *, precision: str = "auto") -> None:
        """Raises UserError for a folder that holds no reward model, or lacks its tokenizer."""
        self.folder, self.scale = folder, read_scale(folder)
        self.tokenizer = TextTokenizer.load(folder)
        if precision == "auto" and torch.device(device).type == "cpu":
            precision = "fp32"
        self.model = load_value_model(folder, choose_precision(precision, torch.device(device)).dtype, device)
        self.template = choose_template(folder, "auto")
        self._masker = Masker(folder, turns="last", context=self.model.config.context, text=self.template)

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the template's child process, if there is one."""
        self._masker.close()

    def score(self, messages: Sequence[Message], completion: str) -> Score:
        """How good an answer to a conversation is. Raises UserError when it does not fit the model's context."""
        (found,) = self.score_all([(messages, completion)])
        if isinstance(found, UserError):
            raise found
        return found

    def score_all(self, answers: Sequence[tuple[Sequence[Message], str]]) -> list[Score | UserError]:
        """The score of each answer, or why it has none."""
        said = [[*messages, Message("assistant", completion)] for messages, completion in answers]
        outcomes = self._masker.mask_all(said)
        fit = [answer_ids(found.ids, found.trained) for found in outcomes if isinstance(found, Conversation)]
        scores = iter(self.score_ids(fit).tolist())
        return [found if isinstance(found, UserError) else self._score(next(scores)) for found in outcomes]

    @torch.inference_mode()
    def score_ids(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Raw scores (texts,) in fp32 on the CPU, each read at the last token. `scale` makes them normal."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        scores = torch.zeros(len(texts))
        device, start = self.model.score.device, 0
        while start < len(order):
            stop = start + 1
            while stop < len(order) and (stop - start + 1) * len(texts[order[stop]]) <= BATCH_TOKENS:
                stop += 1
            some = order[start:stop]
            tokens, real = padded([texts[i] for i in some])
            scores[some] = self.model.scores(tokens.to(device), real.to(device)).cpu()
            start = stop
        return scores

    def _score(self, raw: float) -> Score:
        return Score(raw, self.scale.normal(raw))


def answer_ids(ids: Sequence[int], trained: Sequence[bool]) -> list[int]:
    """A conversation's tokens up to the last that the answer is made of: a template may write a line break behind."""
    last = max(place for place, on in enumerate(trained) if on)
    return list(ids[: last + 1])


def padded(texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Texts as rows (B, T) padded on the right, and which tokens are real."""
    tokens = torch.zeros(len(texts), max(map(len, texts)), dtype=torch.long)
    real = torch.zeros_like(tokens, dtype=torch.bool)
    for row, ids in enumerate(texts):
        tokens[row, : len(ids)], real[row, : len(ids)] = torch.tensor(ids), True
    return tokens, real


def refuse_other_language(reward: Path, policy: Path, template: str) -> None:
    """Raise UserError unless a reward model reads what a policy writes: the same tokenizer, the same chat template.

    template: the text of the policy's.
    """
    if sha256_file(reward / TOKENIZER) != sha256_file(base_folder(policy) / TOKENIZER):
        raise UserError(
            f"The reward model in {reward} was trained with another tokenizer than {policy}.",
            "Train one from a checkpoint with this tokenizer.",
        )
    if choose_template(reward, "auto") != template:
        raise UserError(
            f"The reward model in {reward} was trained on another chat template than {policy} uses.",
            "Train one with this template, or set the template to the reward model's.",
        )
