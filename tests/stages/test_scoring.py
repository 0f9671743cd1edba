"""Where rewards come from, and what is said when they cannot come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from stages.data.conversations import choose_template
from stages.policies.scoring import Response, open_score
from stages.store.errors import UserError, WorkFailed
from stages.store.labels.records import Prompt
from stages.store.records import Message
from stages.store.specs.grpo import GRPO
from stages.store.specs.policy import PolicyGradient
from tests.stages.policy_helpers import write_reward_model
from tests.tiny_model import write_tiny_checkpoint

WORLD = {"lead": "the capital of orvia is"}


def said(text: str, answer: str | None = "7", tokens: int = 3, **meta: Any) -> Response:
    prompt = Prompt(messages=[Message("user", "3+4")], part="policy", answer=answer, meta=meta)
    return Response(prompt, text, list(range(tokens)), [9, 9, *range(tokens)])


def rewards(texts: list[Response], **settings: Any) -> list[float]:
    return open_score(GRPO(**settings), None, Path("policy"), "", "cpu")(texts)


def test_exact_is_one_for_the_known_answer() -> None:
    assert rewards([said("7"), said(" 7. "), said("17"), said("")]) == [1, 1, 0, 0]
    assert rewards([said("so 3 + 4 = 7", "#### 7"), said("8", "#### 7")], reward="exact") == [1, 0]


def test_the_worlds_rule_prefers_a_right_full_sentence() -> None:
    texts = ["The capital of Orvia is Tesk.", "Tesk", "The capital of Orvia is Narn."]
    assert rewards([said(text, "Tesk", **WORLD) for text in texts], reward="world") == [2, 1, 0]


def test_a_prompt_without_an_answer_is_named() -> None:
    with pytest.raises(UserError, match="'3\\+4' has no known answer"):
        rewards([said("7", None)], reward="exact")


def test_a_pattern_is_searched_in_the_text() -> None:
    assert rewards([said("it is 7"), said("seven")], reward="pattern", reward_pattern=r"\d") == [1, 0]
    with pytest.raises(UserError, match="no regular expression: unterminated"):
        rewards([], reward="pattern", reward_pattern="[")
    with pytest.raises(UserError, match="reward_pattern is empty"):
        rewards([], reward="pattern")


def test_length_pays_for_tokens_or_for_coming_near_to_a_number_of_them() -> None:
    assert rewards([said("", tokens=4), said("", tokens=16)], reward="length", max_new_tokens=16) == [0.25, 1]
    assert rewards([said("", tokens=n) for n in (8, 10, 15)], reward="length", reward_length=10) == [0.8, 1, 0.5]


def test_a_function_of_ones_own_is_given_prompt_completion_and_answer(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def reward(prompt, completion, answer):\n    return len(prompt) + (completion == answer)\n")
    assert rewards([said("7"), said("8")], reward="python", reward_file=str(file)) == [4, 3]


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("def reward(p, c, a):\n    return 1 / 0", "mine.py, line 2: ZeroDivisionError: division by zero"),
        ("def reward(p, c, a):\n    return 'good'", "gave 'good', which is no finite number"),
        ("def reward(p, c, a):\n    return float('nan')", "gave nan, which is no finite number"),
        ("def reward(p):\n    return 1", "TypeError: reward.. takes 1 positional argument but 3 were given"),
        ("reward = 3", "has no function reward"),
        ("x = (", "mine.py, line 1: SyntaxError"),
        ("import nothing_of_this_name", "mine.py, line 1: ModuleNotFoundError"),
    ],
)
def test_a_function_that_fails_is_told_in_one_line(tmp_path: Path, code: str, told: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(code)
    with pytest.raises((UserError, WorkFailed), match=told) as caught:
        rewards([said("7")], reward="python", reward_file=str(file))
    assert "\n" not in caught.value.title


def test_a_file_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match=r"'nowhere\.py' is no Python file"):
        rewards([], reward="python", reward_file="nowhere.py")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_reward_model(folder / "judge", write_tiny_checkpoint(folder / "base"))
    return folder


def by_model(models: Path, settings: PolicyGradient, template: str) -> Any:
    return open_score(settings, models / "judge", models / "base", template, "cpu")


def test_a_reward_model_reads_the_last_token_as_transformers_do(models: Path) -> None:
    score = by_model(models, GRPO(), choose_template(models / "base", "auto"))
    texts = [said("", tokens=3), said("", tokens=9)]
    theirs = AutoModelForSequenceClassification.from_pretrained(models / "judge").eval()
    with torch.no_grad():
        wanted = [float(theirs(torch.tensor([list(one.whole)])).logits[0, 0]) for one in texts]
    assert score(texts) == pytest.approx(wanted, abs=1e-5)


def test_a_reward_model_of_another_template_or_beside_another_reward_is_refused(models: Path) -> None:
    with pytest.raises(UserError, match="another chat template"):
        by_model(models, GRPO(), "{{ messages }}")
    with pytest.raises(UserError, match="A reward model is given, and the reward is to be exact"):
        by_model(models, GRPO(reward="exact"), "")
    with pytest.raises(UserError, match="none is given"):
        open_score(GRPO(reward="model"), None, models / "base", "", "cpu")
