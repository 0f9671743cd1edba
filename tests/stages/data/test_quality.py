"""Quality: each rule alone drops what it is for and keeps ordinary text in several scripts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.data.cleaning import Cleaner
from stages.data.hashing import WORD, words
from stages.data.quality import Page, repeated, top_ngram
from stages.store.records import TextRecord
from stages.store.specs.build import Build

PROSE = (
    "The tide had gone out before anyone woke, and the boats lay on their sides in the mud like sleeping animals.\n"
    "Down by the wall a woman was mending a net with quick, practised fingers; she did not look up.\n\n"
    "Nobody in the village remembered who had built the lighthouse, though several families claimed the honour.\n"
)
CHINESE = (
    "潮水在天亮之前就退去了，船只像沉睡的动物一样侧卧在泥里。\n"
    "墙边有个女人正在熟练地补网，她没有抬头。村里没有人记得灯塔是谁建的。\n"
)


def dropped_by(text: str, **settings: Any) -> list[str]:
    cleaner = Cleaner(Build(sources=[], quality=True, **settings))
    cleaner.clean(TextRecord(text=text))
    return [line.name for line in cleaner.filters() if line.removed]


@pytest.mark.parametrize("text", [PROSE, CHINESE], ids=["english", "chinese"])
def test_ordinary_text_is_kept(text: str) -> None:
    assert dropped_by(text) == []


@pytest.mark.parametrize(
    ("text", "name", "off"),
    [
        (PROSE + "Lorem ipsum dolor sit amet.", "placeholder text", {"drop_placeholders": False}),
        ("a b c d e f g h i j k l m n o p q r s t u v w x y z", "mean word length", {"min_mean_word": None}),
        ("uncharacteristically incomprehensible telecommunications", "mean word length", {"max_mean_word": None}),
        ("#one #two #three four five … six", "symbols", {"max_symbols": None}),
        ("1234 5678 9012 3456 7890 words", "words without letters", {"min_alphabetic": None}),
        (
            "- first item of the list\n- second thing to buy\n* third point made here",
            "bullets",
            {"max_bullet_lines": None},
        ),
        (
            f"read more...\nclick here…\n{PROSE[:98]}",
            "ellipses",
            {"max_ellipsis_lines": None},
        ),
        ("home page\n" * 8 + PROSE, "repeated lines", {"max_repetition": None}),
        ("buy cheap shoes online now " * 12, "repeated words", {"max_repetition": None}),
        ("好吃的苹果" * 30, "repeated words", {"max_repetition": None}),
    ],
)
def test_a_rule_drops_what_it_is_for_and_can_be_turned_off(text: str, name: str, off: dict[str, Any]) -> None:
    assert dropped_by(text) == [name]
    assert name not in dropped_by(text, **off)


def test_words_are_counted_only_when_asked_for() -> None:
    assert dropped_by(PROSE) == [] and dropped_by(PROSE, min_words=1_000) == ["words"]


def test_nothing_is_judged_without_the_switch() -> None:
    cleaner = Cleaner(Build(sources=[], quality=False))
    assert cleaner.clean(TextRecord(text="spam " * 100)) is not None


def test_characters_of_repeated_ngrams_are_counted_once() -> None:
    page = Page("aa bb cc xx aa bb cc yy aa bb cc")
    starts = np.concatenate([[0], np.cumsum(page.lengths)])
    assert top_ngram(page, starts, 2) == 12  # "aa bb" three times, two words of two letters
    assert repeated(page, 2) == 12  # "aa bb cc", the second and the third time
    assert repeated(page, 4) == 0


@given(st.text(alphabet=st.sampled_from("ab \t\n\u3000\xa0\x1f-é中の"), max_size=40))
def test_the_short_way_to_words_finds_the_same(text: str) -> None:
    assert words(text) == WORD.findall(text)
