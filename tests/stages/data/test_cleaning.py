"""Cleaning: what each filter does to a document, and that the report says so."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.data.cleaning import Cleaner
from stages.store.datasets import Filter
from stages.store.specs.build import Build


def cleaner(**settings: Any) -> Cleaner:
    return Cleaner(Build(sources=[], **settings))


def report(cleaner: Cleaner) -> dict[str, Filter]:
    return {line.name: line for line in cleaner.filters()}


@pytest.mark.parametrize(
    ("before", "after", "name"),
    [
        ("\ufeffone\r\ntwo\rthree\n", "one\ntwo\nthree\n", "line endings"),
        ("cafe\u0301", "café", "unicode"),
        ("a\x00b\x1b[31mc\x7fd\x85e\tf\n", "ab[31mcde\tf\n", "control characters"),
    ],
)
def test_a_document_is_changed_and_counted(before: str, after: str, name: str) -> None:
    filters = cleaner()
    assert filters.clean(before) == after
    lines = report(filters)
    assert lines[name].changed == 1 and lines[name].examples
    assert sum(line.changed + line.removed for line in lines.values()) == 1


def test_short_long_and_empty_documents_are_dropped_and_counted() -> None:
    filters = cleaner(min_characters=3, max_characters=6)
    assert [filters.clean(text) for text in ("ab", " ab \n", "\n\n", "abc", "abcdefg")] == [
        None,
        None,
        None,
        "abc",
        None,
    ]
    assert report(filters)["length"].removed == 4


def test_duplicates_are_found_after_cleaning() -> None:
    filters = cleaner()
    assert [filters.clean(text) for text in ("one\r\n", "one\n", "two\n")] == ["one\n", None, "two\n"]
    assert report(filters)["duplicates"].removed == 1
    assert [cleaner(deduplicate=False).clean("one") for _ in range(2)] == ["one", "one"]


def test_filters_that_are_off_do_nothing_and_are_not_reported() -> None:
    filters = cleaner(normalise="none", control_characters=False, deduplicate=False)
    assert filters.clean("cafe\u0301\x07") == "cafe\u0301\x07"
    assert set(report(filters)) == {"line endings", "length"}


def test_examples_are_few_short_and_show_the_place() -> None:
    filters = cleaner()
    for n in range(20):
        filters.clean("x" * 5_000 + f"\x07 bell {n}" + "y" * 5_000)
    line = report(filters)["control characters"]
    assert line.changed == 20 and len(line.examples) == 3
    assert all("\x07 bell" in example and len(example) <= 90 for example in line.examples)


@given(st.text(max_size=200))
def test_cleaning_twice_changes_nothing_more(text: str) -> None:
    once = cleaner().clean(text)
    assert once is None or cleaner().clean(once) == once
