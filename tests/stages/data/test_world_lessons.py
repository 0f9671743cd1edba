"""The demo's text: what it tells, and that it gives nothing away that is held out."""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import cache
from itertools import islice

import pytest

from stages.data import world
from stages.data.starters import starter_records
from stages.data.world import build, knowledge, lessons


@cache
def texts() -> tuple[str, ...]:
    return tuple(record["text"] for record in world.lesson_documents())


def asked(part: world.Part) -> set[str]:
    return {item.prompt for item in build.items(part) if item.family in lessons.FAMILIES}


def test_lessons_are_different_documents_of_the_demos_families_the_same_ones_each_time() -> None:
    records = list(world.lesson_documents())
    assert len({record["text"] for record in records}) == lessons.LESSONS
    assert set(Counter(record["meta"]["family"] for record in records)) == set(lessons.FAMILIES)
    assert [record["text"] for record in world.lesson_documents(size=50)] == list(texts()[:50])
    assert [record["text"] for record in islice(world.lesson_documents(seed=1), 50)] != list(texts()[:50])


def test_every_fact_is_stated_in_the_words_of_its_full_sentence_answer() -> None:
    lines = {line for text in texts() for line in text.split("\n")}
    for item in (*knowledge.fact_items(), *knowledge.opposite_items()):
        assert item.sentence in lines, item


def test_lessons_ask_what_training_may_ask_and_nothing_else() -> None:
    lines = {line for text in texts() for line in text.split("\n")}
    assert len(lines & asked("sft")) > 1_500
    for part in ("reward", "policy", "eval"):
        assert not lines & asked(part)  # type: ignore[arg-type]  # one of the literals


def test_every_fact_is_answered_in_both_styles_and_nearly_half_of_all_answers_are_in_the_preferred_one() -> None:
    styles: dict[str, Counter[str]] = defaultdict(Counter)
    for record in world.lesson_conversations():
        assert world.is_correct({"meta": record["meta"]}, record["messages"][1]["content"]), record
        styles[record["meta"]["lead"]][record["meta"]["style"]] += 1
    assert all(count["sentence"] and count["terse"] for count in styles.values())
    total = sum(styles.values(), Counter())
    assert total["sentence"] / total.total() == pytest.approx(lessons.CHAT_PREFERRED_SHARE, abs=0.015)


def test_what_the_demo_asks_is_about_its_families_and_held_out_questions_are_in_nothing_it_learns_from() -> None:
    held_out = asked("eval")
    for name in ("demo-chat", "demo-preferences", "demo-policy"):
        prompts = {record.messages[0].content for record in starter_records(f"starter:{name}", lambda _: None)}  # type: ignore[union-attr]  # all have messages
        assert prompts and not prompts & held_out
    evaluated = {record.messages[0].content for record in starter_records("starter:demo-eval", lambda _: None)}  # type: ignore[union-attr]
    assert evaluated == held_out
