"""Judging answers in the world: what is right, which style it is in, and how the rule ranks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.data import world
from stages.data.world import build
from stages.data.world.answers import right_answers, wrong_answers

SUM = {"answer": "7", "meta": {"lead": "3 plus 4 is"}}
CAPITAL = {"answer": "Tamsin", "meta": {"lead": "The capital of Velora is"}}


@pytest.mark.parametrize(
    ("text", "style"),
    [
        ("The capital of Velora is Tamsin.", "sentence"),
        ("3 plus 4 is 7.", "sentence"),
        ("Tamsin", "terse"),
        ("Tamsin.", "terse"),
        ("the capital of Velora is Tamsin.", "terse"),
        ("The capital of Velora is Tamsin", "terse"),
        ("The capital of Velora is Tamsin...", "terse"),
        ("", "terse"),
        ("It is Tamsin. I am sure.", "rambling"),
        ("The answer\nis Tamsin.", "rambling"),
        (" ".join(["word"] * 15), "rambling"),
    ],
)
def test_the_style_of_an_answer(text: str, style: str) -> None:
    assert world.style_of(text) == style


@pytest.mark.parametrize("said", ["7", "7.", " 7 ", "3 plus 4 is 7.", "3 + 4 = 7", "It is 7.", "I think it is 7"])
def test_right_answers_to_a_sum(said: str) -> None:
    assert world.is_correct(SUM, said)


@pytest.mark.parametrize(
    "said",
    [
        "",
        "8",
        "17",
        "77",
        "-7",
        "7 8",
        "8 7",
        "6, 7",
        "It is not 7.",
        "7 7 7",
        "3 plus 4 is",
        "3 plus 4 is 8.",
        "7 is 3",
    ],
)
def test_wrong_answers_to_a_sum(said: str) -> None:
    assert not world.is_correct(SUM, said)


@pytest.mark.parametrize(
    "said",
    ["Tamsin Tamsin", "Arlen or Tamsin", "It is Tamsinx", "Tam", "It is it is Tamsin", "it " * 50 + "Tamsin"],
)
def test_guesses_stutters_and_padding_are_wrong(said: str) -> None:
    assert not world.is_correct(CAPITAL, said)


def test_case_and_closing_punctuation_do_not_matter() -> None:
    assert world.is_correct(CAPITAL, "tamsin!")
    assert world.is_correct(CAPITAL, "the capital of velora is TAMSIN")


@given(st.text(max_size=60))
def test_any_text_can_be_judged(text: str) -> None:
    world.style_of(text)
    assert world.score(CAPITAL, text) in (0, 1, 2)


@pytest.mark.parametrize("part", world.PARTS)
def test_of_every_item_the_right_forms_are_right_the_wrong_ones_wrong_and_the_sentence_best(part: world.Part) -> None:
    for item, record in zip(build.items(part), world.questions(part), strict=True):
        right, wrong = right_answers(item), wrong_answers(item)
        assert [world.score(record, text) for text in right] == [2, 1, 1, 1, 1, 1], (item, right)
        assert max(world.score(record, text) for text in wrong) == 0, (item, wrong)


def test_the_rule_prefers_right_sentences_then_right_answers_and_ties_the_rest() -> None:
    sentence, bare, wrong = "The capital of Velora is Tamsin.", "Tamsin", "The capital of Velora is Arlen."
    assert world.preferred(CAPITAL, sentence, bare) == 1
    assert world.preferred(CAPITAL, wrong, bare) == -1
    assert world.preferred(CAPITAL, wrong, "Arlen") == 0
    assert world.rank(CAPITAL, [bare, wrong, sentence, "It is Tamsin", ""]) == [2, 3, 1, 2, 3]
    assert world.rank(CAPITAL, [wrong, bare]) == [2, 1]


@pytest.mark.parametrize("k", [2, 4, 9])
def test_preferences_are_ranked_by_the_rule_with_different_completions_in_no_fixed_order(k: int) -> None:
    best_places, n = set(), 400
    records = list(world.preferences("reward", n, k))
    assert len(records) == n
    for record in records:
        texts, ranks = record["completions"], record["ranks"]
        assert len(set(texts)) == len(ranks) == k
        assert ranks == world.rank(record, texts)
        assert 1 < len(set(ranks)) <= 3
        assert record["meta"]["part"] == "reward"
        assert record["source"] == "world" and record["annotator"] == "rule"
        best_places.add(ranks.index(1))
        assert all(texts) and all(text.strip() for text in texts)
    assert best_places == set(range(k)) or k == 9


def test_preferences_ask_each_prompt_once_before_any_comes_again() -> None:
    prompts = len(list(world.questions("reward")))
    asked = [record["messages"][0]["content"] for record in world.preferences("reward", prompts + 10)]
    assert len(set(asked[:prompts])) == prompts
    assert len(set(asked)) == prompts


@pytest.mark.parametrize("k", [0, 1, 10])
def test_a_number_of_completions_out_of_range_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match="2 to 9"):
        next(world.preferences("reward", 1, k))


def test_preferences_show_every_style_right_and_wrong() -> None:
    seen = {
        (world.is_correct(record, text), world.style_of(text))
        for record in world.preferences("policy", 300)
        for text in record["completions"]
    }
    assert seen == {(right, style) for right in (True, False) for style in ("sentence", "terse", "rambling")}


def test_a_share_of_the_rankings_is_turned_round_and_says_so() -> None:
    straight, turned = list(world.preferences("reward", 1_000)), list(world.preferences("reward", 1_000, flipped=0.1))
    assert [one["completions"] for one in turned] == [one["completions"] for one in straight]
    marked = [(old, new) for old, new in zip(straight, turned, strict=True) if new["meta"].get("flipped")]
    assert 70 < len(marked) < 130
    assert all(new["ranks"] == [max(old["ranks"]) + 1 - place for place in old["ranks"]] for old, new in marked)
    assert sum(old["ranks"] != new["ranks"] for old, new in zip(straight, turned, strict=True)) <= len(marked)
