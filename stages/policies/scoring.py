"""Where rewards come from: a reward model, the known answer, the starter world's rule, a pattern, length, a function.

A scorer takes completions and gives each a number: the higher, the better.
"""

from __future__ import annotations

import importlib.util
import math
import re
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import nn

from stages.data.world import score as world_score
from stages.measuring.matching import is_right
from stages.measuring.scorer import Scorer, refuse_other_language
from stages.store.errors import UserError, WorkFailed
from stages.store.files import path_of
from stages.store.labels.records import Prompt
from stages.store.records import PromptRecord
from stages.store.specs.policy import Reward
from stages.training import distributed


class Response(NamedTuple):
    """A completion: what was asked, its text, its tokens, and all tokens, those of the prompt before them."""

    prompt: Prompt
    text: str
    tokens: Sequence[int]
    whole: Sequence[int]


Score = Callable[[Sequence[Response]], list[float]]
"""A number for each completion."""


class RewardSettings(Protocol):
    """The settings that say what scores completions; `stages.store.specs.policy` tells what each means."""

    @property
    def reward(self) -> Reward: ...
    @property
    def reward_pattern(self) -> str: ...
    @property
    def reward_length(self) -> int | None: ...
    @property
    def reward_file(self) -> str: ...
    @property
    def max_new_tokens(self) -> int: ...


def open_score(
    settings: RewardSettings,
    model: Path | None,
    policy: Path,
    template: str,
    device: torch.device | str,
    *,
    precision: str = "auto",
    beside: nn.Module | None = None,
) -> Score:
    """The scorer that the settings name. model: the folder of a reward model, if there is one.

    policy, template: whose completions are scored, and the chat template they are written by. beside: a model that may
    be cut; the reward model is then, and all processes must score together. Raises UserError when a setting that the
    choice needs is missing or wrong, or when the reward model reads another language.
    """
    kind = _kind_of(settings, model)
    if model is not None and kind != "model":
        raise UserError(f"A reward model is given, and the reward is to be {kind}.", "Leave one of the two out.")
    match kind:
        case "model":
            return _by_model(model, policy, template, torch.device(device), precision, beside)
        case "exact":
            return _exact
        case "world":
            return _world
        case "pattern":
            return _by_pattern(settings.reward_pattern)
        case "length":
            return _by_length(settings.reward_length, settings.max_new_tokens)
        case _:
            return _by_function(settings.reward_file)


def refuse_unanswered(settings: RewardSettings, model: Path | None, prompts: Iterable[Prompt]) -> None:
    """Raise UserError where completions are to be compared with known answers, and one of these prompts has none."""
    if _kind_of(settings, model) in ("exact", "world"):
        for prompt in prompts:
            _answer(prompt)


def _kind_of(settings: RewardSettings, model: Path | None) -> Reward:
    if settings.reward == "auto":
        return "model" if model else "exact"
    return settings.reward


def _by_model(
    model: Path | None, policy: Path, template: str, device: torch.device, precision: str, beside: nn.Module | None
) -> Score:
    """Normalised scores: mean 0 and spread 1 on the reward model's reference samples."""
    if model is None:
        raise UserError("The reward is to be a model's, and none is given.", "Name it with --reward.")
    refuse_other_language(model, policy, template)
    scorer = Scorer(model, distributed.place_beside(beside, device), precision=precision)
    distributed.shard_beside(beside, scorer.model, device, scorer.model.score.dtype)

    def score(responses: Sequence[Response]) -> list[float]:
        with distributed.whole(scorer.model):
            return [scorer.scale.normal(raw) for raw in scorer.score_ids([each.whole for each in responses]).tolist()]

    return score


def _exact(responses: Sequence[Response]) -> list[float]:
    """1 for the known answer, by the rule that evaluation uses; else 0."""
    return [float(is_right(_record(each.prompt), each.text, "auto")) for each in responses]


def _world(responses: Sequence[Response]) -> list[float]:
    """2 for a right full sentence, 1 for another right answer, 0 for a wrong one (`stages.data.world.answers`)."""
    return [
        float(world_score({"answer": _answer(each.prompt), "meta": each.prompt.meta}, each.text)) for each in responses
    ]


def _by_pattern(pattern: str) -> Score:
    if not pattern:
        raise UserError("The reward is to be a pattern, and reward_pattern is empty.")
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"reward_pattern is no regular expression: {error}.") from error
    return lambda responses: [float(compiled.search(each.text) is not None) for each in responses]


def _by_length(wanted: int | None, longest: int) -> Score:
    """Without a length to come to: tokens as a share of the longest allowed. Else 1 there, less the share it is off."""
    if wanted is None:
        return lambda responses: [len(each.tokens) / longest for each in responses]
    return lambda responses: [1 - abs(len(each.tokens) - wanted) / wanted for each in responses]


def _by_function(file: str) -> Score:
    function = _load(file)

    def score(responses: Sequence[Response]) -> list[float]:
        return [_call(function, each, file) for each in responses]

    return score


def _load(file: str) -> Callable[..., object]:
    """The function `reward` of a Python file."""
    if not file:
        raise UserError("The reward is to be a function, and reward_file is empty.")
    path = path_of(file)
    plan = importlib.util.spec_from_file_location("workbench_reward", path) if path.is_file() else None
    if plan is None or plan.loader is None:
        raise UserError(f"reward_file {file!r} is no Python file.", "Give its whole path.")
    module = importlib.util.module_from_spec(plan)
    try:
        plan.loader.exec_module(module)
    except Exception as error:  # whatever a person's file raises
        raise UserError(f"{path} cannot be run: {_told(error, path)}.") from error
    function = getattr(module, "reward", None)
    if not callable(function):
        raise UserError(
            f"{path} has no function reward.", "It needs `def reward(prompt, completion, answer) -> float`."
        )
    return function


def _call(function: Callable[..., object], response: Response, file: str) -> float:
    try:
        found = function(response.prompt.messages[-1].content, response.text, response.prompt.answer)
    except Exception as error:  # whatever a person's file raises
        raise WorkFailed(f"The reward function failed: {_told(error, Path(file).expanduser())}.") from error
    if isinstance(found, bool | int | float) and math.isfinite(found):
        return float(found)
    raise WorkFailed(f"The reward function of {file} gave {found!r:.100}, which is no finite number.")


def _told(error: Exception, path: Path) -> str:
    """An error of a person's file in one line, with the line it arose in."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    if isinstance(error, SyntaxError):
        lines = [error.lineno]
    where = f"{path.name}, line {lines[-1]}: " if lines else ""
    return f"{where}{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _record(prompt: Prompt) -> PromptRecord:
    return PromptRecord(messages=prompt.messages, answer=_answer(prompt), meta=prompt.meta)


def _answer(prompt: Prompt) -> str:
    if not prompt.answer:
        raise UserError(
            f"The prompt {prompt.messages[-1].content[:60]!r} has no known answer, by which to reward.",
            "Use prompts with answers, or another reward.",
        )
    return prompt.answer
