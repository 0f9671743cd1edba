"""Rollouts: what the policy says to prompts as it stands, in tokens, with the targets that a loss is over.

Each completion is drawn with a seed of its own, made of the run's seed, how many completions were drawn before it, and
nothing else: a resumed run draws the same ones, and so does any number of processes.

Shapes: B completions, T tokens of the longest prompt with its completion, less one: target t is token t + 1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.data.conversations import Masker
from stages.data.order import order_at
from stages.data.records import read_records
from stages.data.tokenizer import TextTokenizer
from stages.generate import Sampling, generate
from stages.loop import any_algorithms
from stages.models.decoder import Decoder
from stages.models.loss import IGNORED
from stages.sample import prompt_of
from stages.store.datasets import Dataset
from stages.store.errors import UserError
from stages.store.labels.records import Prompt
from stages.training import distributed


class TokenizedPrompt(NamedTuple):
    """A prompt, and its tokens up to where the assistant is to speak."""

    prompt: Prompt
    tokens: list[int]

    @property
    def text(self) -> str:
        """What is asked last."""
        return self.prompt.messages[-1].content


class Prompts(NamedTuple):
    """The prompts of one split, what was left out of it and why."""

    asked: list[TokenizedPrompt]
    left_out: int = 0
    why: str = ""

    @property
    def longest(self) -> int:
        """Tokens of the longest; 0 for none."""
        return max((len(each.tokens) for each in self.asked), default=0)

    def order(self, position: int, count: int, seed: int) -> list[TokenizedPrompt]:
        """Those at these places of the endless order, in which each epoch asks every prompt once."""
        return [self.asked[place] for place in order_at(position, count, len(self.asked), seed).tolist()]


class Rollouts(NamedTuple):
    """Completions of prompts. Targets are IGNORED but where a completion's token is to be said."""

    asked: list[TokenizedPrompt]
    completions: list[list[int]]
    """Their tokens, the one that ended them included."""
    texts: list[str]
    ended: list[bool]
    """Whether a completion came to its end, rather than to the longest that is allowed."""
    inputs: Tensor
    """(B, T) int64."""
    targets: Tensor
    """(B, T) int64."""

    def __len__(self) -> int:
        return len(self.asked)

    @property
    def mask(self) -> Tensor:
        """1.0 where a target is, else 0.0: (B, T) fp32."""
        return (self.targets != IGNORED).float()

    @property
    def tokens(self) -> int:
        """Tokens of prompts and completions."""
        return sum(len(asked.tokens) for asked in self.asked) + sum(map(len, self.completions))

    @property
    def mean_length(self) -> float:
        """Tokens of a completion."""
        return sum(map(len, self.completions)) / len(self)

    def width(self, rows: NDArray[np.int64]) -> int:
        """Targets of the longest of these rows, its prompt included."""
        return max(len(self.asked[row].tokens) + len(self.completions[row]) for row in rows.tolist()) - 1


class Writer:
    """Draws completions from a model."""

    def __init__(self, tokenizer: TextTokenizer, stops: Sequence[int], longest: int, slots: int) -> None:
        """longest: tokens of a completion. stops: tokens that end one. slots: completions written at once."""
        self.tokenizer = tokenizer
        self._stops, self._longest, self._slots = tuple(stops), longest, slots

    def write(
        self, model: Decoder, asked: Sequence[TokenizedPrompt], seeds: Sequence[int], temperature: float
    ) -> Rollouts:
        """A completion of each prompt; at temperature 0 the likeliest.

        Of several processes each writes its share, and all have all of them.
        """
        mine = distributed.share(len(asked))
        samplings = [
            Sampling(temperature=temperature, seed=seeds[place], max_new_tokens=self._longest, stop_ids=self._stops)
            for place in mine
        ]
        with distributed.whole(model), any_algorithms():
            said = generate(model, [asked[place].tokens for place in mine], samplings, max_slots=self._slots)
        return self.laid_out(asked, distributed.all_gather_list(said), model.tokens.device)

    def laid_out(self, asked: Sequence[TokenizedPrompt], said: Sequence[list[int]], device: torch.device) -> Rollouts:
        """Prompts with the tokens that were said to them, side by side."""
        texts = [self.tokenizer.decode([token for token in ids if token not in self._stops]).strip() for ids in said]
        ended = [ids[-1] in self._stops for ids in said]
        tokens_BT, targets_BT = lay_out([each.tokens for each in asked], said, self.tokenizer.pad_id)
        return Rollouts(list(asked), list(said), texts, ended, tokens_BT.to(device), targets_BT.to(device))


def lay_out(prompts: Sequence[list[int]], completions: Sequence[list[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Tokens and targets (B, T), int64, padded on the right, where causal attention does not see it."""
    longest = max(len(prompt) + len(said) for prompt, said in zip(prompts, completions, strict=True)) - 1
    tokens = np.full((len(prompts), longest), pad, np.int64)
    targets = np.full((len(prompts), longest), IGNORED, np.int64)
    for row, (prompt, said) in enumerate(zip(prompts, completions, strict=True)):
        ids = [*prompt, *said]
        tokens[row, : len(ids) - 1] = ids[:-1]
        targets[row, len(prompt) - 1 : len(ids) - 1] = said
    return torch.from_numpy(tokens), torch.from_numpy(targets)


def seeds_of(seed: int, drawn: int, count: int) -> list[int]:
    """Seeds of the completions after the first `drawn` of a run: below 2^31, and unlike those of their neighbours."""
    keys = (f"{seed}/{number}".encode() for number in range(drawn, drawn + count))
    return [int.from_bytes(hashlib.blake2b(key, digest_size=4).digest(), "big") >> 1 for key in keys]


def read_prompts(dataset: Dataset, split: str, masker: Masker, room: int, part: str = "any") -> Prompts:
    """The prompts of a split that take at most `room` tokens, and are of this part of the prompt set."""
    records = read_records(dataset, split) if dataset.info.records.get(split) else ()
    prompts = [prompt_of(record) for record in records]
    wanted = [prompt for prompt in prompts if prompt is not None and part in ("any", prompt.part)]
    asked = list[TokenizedPrompt]()
    refused = ["nothing is asked before the assistant speaks"] * prompts.count(None)
    outcomes = chain.from_iterable(
        masker.prompt_all([prompt.messages for prompt in wanted[start : start + 512]])
        for start in range(0, len(wanted), 512)
    )
    for prompt, tokens in zip(wanted, outcomes, strict=True):
        if isinstance(tokens, UserError):
            refused.append(tokens.title)
        elif not 0 < len(tokens) <= room:
            refused.append(f"it has {len(tokens):,} tokens, and {room:,} fit beside a completion")
        else:
            asked.append(TokenizedPrompt(prompt, tokens))
    return Prompts(asked, len(refused), refused[0] if refused else "")
