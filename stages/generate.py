"""Generation: sequences in the slots of one batch over a KV cache. Token ids in, token ids out.

Each slot keeps its own settings and its own random numbers, so its tokens do not depend on what other slots do, but for
the rounding of matrix products of another size. A slot is finished by a stop (reason "stop"), or by its token limit or
the end of the context (reason "length").
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stages.models.decoder import Decoder
from stages.models.inference import InferenceDecoder
from stages.store.errors import WorkFailed

DRAWN_AHEAD = 32
"""Random numbers that a sequence draws at once."""


@dataclass(frozen=True)
class Sampling:
    """How one sequence is continued.

    temperature: divides the logits; 0 takes the likeliest token. top_k: only the k likeliest (0: all). top_p: only the
    fewest likeliest tokens whose probabilities, after top_k, reach p (1: all). stop_ids: tokens that end the sequence;
    stop_sequences: runs of generated tokens that do. The token that stops is still reported. alternatives: how many of
    the likeliest tokens are reported with each, with their log-probabilities.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    max_new_tokens: int = 256
    stop_ids: tuple[int, ...] = ()
    stop_sequences: tuple[tuple[int, ...], ...] = ()
    alternatives: int = 0

    def __post_init__(self) -> None:
        if not self.temperature >= 0 or self.top_k < 0 or not 0 < self.top_p <= 1 or self.max_new_tokens < 1:
            raise ValueError(f"temperature >= 0, top_k >= 0, 0 < top_p <= 1 and max_new_tokens >= 1 must hold: {self}")
        if not all(self.stop_sequences):
            raise ValueError("a stop sequence must not be empty")


class Token(NamedTuple):
    """One generated token. logprob is under the model's own distribution, before temperature, top_k and top_p; not a
    number where the engine was told to leave it out."""

    slot: int
    token: int
    logprob: float
    finished: str | None
    alternatives: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens with their log-probabilities, the likeliest first, where they were asked for."""


@dataclass
class _Slot:
    id: int
    sampling: Sampling
    length: int  # tokens of prompt and completion
    unread: int  # the newest token, which the model has not seen yet
    waiting: list[int]  # tokens before it that the model has not seen either: those of a prompt that has not begun
    generator: torch.Generator | None  # None where nothing is drawn
    generated: list[int] = field(default_factory=list)
    uniforms: list[float] = field(default_factory=list)  # drawn ahead, the next one last

    def uniform(self) -> float:
        """The next random number of this sequence."""
        if self.generator is None:
            return 0.0
        if not self.uniforms:
            self.uniforms = torch.rand(DRAWN_AHEAD, dtype=torch.float64, generator=self.generator).tolist()[::-1]
        return self.uniforms.pop()


class Engine:
    """Continues up to `max_slots` sequences at once, one token each per `step`.

    A sequence, prompt and completion together, ends at `max_length` tokens: the model's context when None, and never
    more. The cache begins with room for `START` tokens a slot and doubles when the longest sequence needs more.
    The model's weights must not change while an engine is in use: make another afterwards. It is used without dropout,
    whatever its mode. `logprobs`: whether tokens come with theirs, which is a pass over the vocabulary.
    """

    START = 1_024
    TOGETHER = 4_096
    """Tokens of prompts, padding included, that are read in one pass."""

    def __init__(
        self, model: Decoder, max_slots: int = 8, max_length: int | None = None, *, logprobs: bool = True
    ) -> None:
        if max_slots < 1:
            raise ValueError("an engine needs at least one slot")
        self.model = model
        self.logprobs = logprobs
        self._decoder = InferenceDecoder(model)
        self.max_slots = max_slots
        self.max_length = min(max_length or model.config.context, model.config.context)
        self._cache = self._decoder.new_cache(max_slots, min(self.START, self.max_length))
        self._slots: list[_Slot] = []  # the slot at index i has row i of the cache
        self._next_id = 0

    @property
    def free_slots(self) -> int:
        """How many sequences may be added now."""
        return self.max_slots - len(self._slots)

    @property
    def active(self) -> list[int]:
        """The ids of the slots that are running."""
        return [slot.id for slot in self._slots]

    def add(self, tokens: Sequence[int], sampling: Sampling | None = None) -> int:
        """Start a sequence after this prompt and return its slot's id, which is never given twice.

        The model reads the prompt in the next `step`, together with others that wait. Raises ValueError when no slot is
        free, when the prompt is empty or leaves no room for one more token, and on a token that is not in the
        vocabulary.
        """
        sampling = sampling or Sampling()
        self._check(tokens)
        self._cache.lengths[len(self._slots)] = 0
        generator = torch.Generator().manual_seed(sampling.seed) if sampling.temperature > 0 else None
        self._slots.append(_Slot(self._next_id, sampling, len(tokens), tokens[-1], list(tokens[:-1]), generator))
        self._next_id += 1
        return self._next_id - 1

    def step(self) -> list[Token]:
        """One more token for every running slot. Finished slots are free afterwards.

        Raises WorkFailed when the model's output is not a number.
        """
        if not self._slots:
            return []
        self._make_room(max(slot.length for slot in self._slots))
        with torch.inference_mode():
            self._read_prompts()
            unread = torch.tensor([slot.unread for slot in self._slots], device=self._device)
            logits_BV = self._decoder.decode(unread, self._cache).float()
            if math.isnan(logits_BV.max().item()):  # one number that is none makes the largest so
                raise WorkFailed(
                    "The model's output is not a number.", "Its weights are damaged; take an earlier checkpoint."
                )
            uniforms = [slot.uniform() for slot in self._slots]
            chosen_B = choose(logits_BV, [slot.sampling for slot in self._slots], uniforms)
            logprobs, likeliest = self._logprobs(logits_BV, chosen_B)
        results = [
            Token(slot.id, token, logprob, self._advance(slot, token), others)
            for slot, token, logprob, others in zip(self._slots, chosen_B.tolist(), logprobs, likeliest, strict=True)
        ]
        for result in results:
            if result.finished:
                self.cancel(result.slot)
        return results

    def cancel(self, slot: int) -> bool:
        """Free a slot. False when no such slot is running, because it has finished."""
        row = next((row for row, each in enumerate(self._slots) if each.id == slot), None)
        if row is None:
            return False
        last = self._slots.pop()
        if row < len(self._slots):  # running slots keep the first rows: the last one moves into the gap
            self._cache.copy_row(len(self._slots), row)
            self._slots[row] = last
        return True

    def _read_prompts(self) -> None:
        """Show the model the prompts that wait, those of like length together, and equal ones once."""
        rows_of: dict[tuple[int, ...], list[int]] = {}
        for row, slot in enumerate(self._slots):
            if slot.waiting:
                rows_of.setdefault(tuple(slot.waiting), []).append(row)
                slot.waiting = []
        prompts, rows = list(rows_of), list(rows_of.values())
        for some in alike([len(prompt) for prompt in prompts], self.TOGETHER):
            longest = max(len(prompts[i]) for i in some)
            tokens_BT = torch.tensor([[*prompts[i], *[0] * (longest - len(prompts[i]))] for i in some])
            lengths_B = torch.tensor([len(prompts[i]) for i in some])
            inputs = (
                each.to(self._device) for each in (tokens_BT, lengths_B, torch.tensor([rows[i][0] for i in some]))
            )
            tokens_BT, lengths_B, rows_B = inputs
            self._decoder.prefill_rows(tokens_BT, lengths_B, self._cache, rows_B)
            copied = [(rows[i][0], row) for i in some for row in rows[i][1:]]
            if copied:
                sources_R, targets_R = torch.tensor(copied, device=self._device).t()
                self._cache.copy_prompts(sources_R, targets_R, longest)

    def _logprobs(self, logits_BV: Tensor, chosen_B: Tensor) -> tuple[list[float], list[tuple[tuple[int, float], ...]]]:
        """For each slot the log-probability of its token, and the alternatives that were asked for."""
        wanted = [slot.sampling.alternatives for slot in self._slots]
        likeliest: list[tuple[tuple[int, float], ...]] = [()] * len(self._slots)
        if not self.logprobs:
            return [math.nan] * len(self._slots), likeliest
        logprobs_BV = logits_BV.log_softmax(-1)
        if any(wanted):
            found = logprobs_BV.topk(min(max(wanted), logprobs_BV.shape[1]))
            rows = zip(found.indices.tolist(), found.values.tolist(), wanted, strict=True)
            likeliest = [tuple(zip(ids, values, strict=True))[:count] for ids, values, count in rows]
        return logprobs_BV.gather(1, chosen_B[:, None])[:, 0].tolist(), likeliest

    def _make_room(self, tokens: int) -> None:
        if tokens > self._cache.room:
            self._cache.grow(min(max(tokens, 2 * self._cache.room), self.max_length))

    @property
    def _device(self) -> torch.device:
        return self.model.tokens.device

    def _advance(self, slot: _Slot, token: int) -> str | None:
        slot.unread = token
        slot.length += 1
        slot.generated.append(token)
        sampling = slot.sampling
        if token in sampling.stop_ids:
            return "stop"
        if sampling.stop_sequences and any(_ends_with(slot.generated, stop) for stop in sampling.stop_sequences):
            return "stop"
        return "length" if len(slot.generated) >= sampling.max_new_tokens or slot.length >= self.max_length else None

    def _check(self, tokens: Sequence[int]) -> None:
        if not self.free_slots:
            raise ValueError(f"all {self.max_slots} slots are running")
        if not 0 < len(tokens) < self.max_length:
            raise ValueError(f"a prompt needs 1 to {self.max_length - 1} tokens, but has {len(tokens)}")
        if min(tokens) < 0 or max(tokens) >= self.model.config.vocab_size:
            raise ValueError(f"a prompt's tokens lie between 0 and {self.model.config.vocab_size - 1}")


def alike(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Groups of indices whose lengths differ little: at most a quarter of a group is padding.

    A group of several has at most `most` tokens, padding included.
    """
    group: list[int] = []
    total = 0
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        padded = lengths[i] * (len(group) + 1)
        if group and (padded > most or 4 * (total + lengths[i]) < 3 * padded):
            yield group
            group, total = [], 0
        group.append(i)
        total += lengths[i]
    if group:
        yield group


def choose(logits_BV: Tensor, samplings: Sequence[Sampling], uniforms: Sequence[float]) -> Tensor:
    """One token a row (B,) int64: the likeliest at temperature 0, else by inverting the distribution at `uniforms`.

    A row's result depends on that row alone.
    """
    B = len(samplings)
    drawn = [i for i, s in enumerate(samplings) if s.temperature > 0]
    chosen_B = _likeliest(logits_BV) if len(drawn) < B else logits_BV.new_empty(B, dtype=torch.int64)
    for truncated in (False, True):
        rows = [i for i in drawn if (samplings[i].top_k > 0 or samplings[i].top_p < 1) == truncated]
        if not rows:
            continue
        some = [samplings[i] for i in rows]
        scores_RV = (logits_BV if len(rows) == B else logits_BV[rows]).double()
        scores_RV = scores_RV - scores_RV.amax(-1, keepdim=True)  # so that a tiny temperature cannot overflow
        probs_RV = (scores_RV / _column([s.temperature for s in some], scores_RV)).softmax(-1)
        tokens_RV = None
        if truncated:
            probs_RV, tokens_RV = probs_RV.sort(stable=True, dim=-1, descending=True)
            probs_RV = _truncate(probs_RV, some)
        cumulative_RV = probs_RV.cumsum(-1)
        targets_R1 = _column([uniforms[i] for i in rows], cumulative_RV) * cumulative_RV[:, -1:]
        places_R1 = torch.searchsorted(cumulative_RV, targets_R1, right=True).clamp(max=logits_BV.shape[1] - 1)
        chosen_B[rows] = (places_R1 if tokens_RV is None else tokens_RV.gather(1, places_R1))[:, 0]
    return chosen_B


def _likeliest(logits_BV: Tensor) -> Tensor:
    """The first of the largest logits of each row (B,) int64."""
    if logits_BV.device.type != "cpu":
        return logits_BV.argmax(-1)
    return torch.from_numpy(np.argmax(logits_BV.detach().numpy(), 1))  # six times as fast as torch's on a CPU


def _truncate(sorted_RV: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    """Probabilities, likeliest first, with those beyond top_k and then beyond top_p set to 0."""
    V = sorted_RV.shape[1]
    top_k_R1 = torch.tensor([s.top_k or V for s in samplings], device=sorted_RV.device)[:, None]
    kept_RV = sorted_RV * (torch.arange(V, device=sorted_RV.device) < top_k_R1)
    before_RV = kept_RV.cumsum(-1) - kept_RV
    limit_R1 = _column([s.top_p for s in samplings], kept_RV) * kept_RV.sum(-1, keepdim=True)
    return kept_RV * (before_RV < limit_R1)


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None]


def _ends_with(tokens: list[int], ending: tuple[int, ...]) -> bool:
    return tuple(tokens[-len(ending) :]) == ending


def generate(
    model: Decoder, prompts: Sequence[Sequence[int]], samplings: Sequence[Sampling] | Sampling, max_slots: int = 8
) -> list[list[int]]:
    """The completions of all prompts, in order; as many at once as there are slots."""
    each = [samplings] * len(prompts) if isinstance(samplings, Sampling) else list(samplings)
    longest = max((len(prompt) + s.max_new_tokens for prompt, s in zip(prompts, each, strict=True)), default=1)
    engine = Engine(model, max(1, min(max_slots, len(prompts))), longest, logprobs=False)
    completions: list[list[int]] = [[] for _ in prompts]
    waiting = list(enumerate(zip(prompts, each, strict=True)))[::-1]
    owner: dict[int, int] = {}
    while waiting or owner:
        while waiting and engine.free_slots:
            index, (prompt, sampling) = waiting.pop()
            owner[engine.add(prompt, sampling)] = index
        for new in engine.step():
            completions[owner[new.slot]].append(new.token)
            if new.finished:
                del owner[new.slot]
    return completions
