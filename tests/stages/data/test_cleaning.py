"""Cleaning: what each filter does to a document, and that the report says so."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.data.cleaning import Cleaner
from stages.store.datasets import Filter
from stages.store.errors import UserError
from stages.store.records import ChatRecord, LabelledRecord, Message, PreferenceRecord, PromptRecord, TextRecord
from stages.store.specs.build import Build
from stages.store.workspace import Workspace
from tests.stages.data.parts import dataset_of


class TextCleaner(Cleaner):
    """Cleans documents given as text."""

    def text(self, text: str) -> str | None:
        record = self.clean(TextRecord(text=text))
        return record.text if isinstance(record, TextRecord) else None


def cleaner(**settings: Any) -> TextCleaner:
    return TextCleaner(Build(sources=[], **settings))


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
    assert filters.text(before) == after
    lines = report(filters)
    assert lines[name].changed == 1 and lines[name].examples
    assert sum(line.changed + line.removed for line in lines.values()) == 1


def test_short_long_and_empty_documents_are_dropped_and_counted() -> None:
    filters = cleaner(min_characters=3, max_characters=6)
    assert [filters.text(text) for text in ("ab", " ab \n", "\n\n", "abc", "abcdefg")] == [
        None,
        None,
        None,
        "abc",
        None,
    ]
    assert report(filters)["length"].removed == 4


def test_duplicates_are_found_after_cleaning() -> None:
    filters = cleaner()
    assert [filters.text(text) for text in ("one\r\n", "one\n", "two\n")] == ["one\n", None, "two\n"]
    assert report(filters)["duplicates"].removed == 1
    assert [cleaner(deduplicate=False).text("one") for _ in range(2)] == ["one", "one"]


def test_filters_that_are_off_do_nothing_and_are_not_reported() -> None:
    filters = cleaner(normalise="none", control_characters=False, deduplicate=False)
    assert filters.text("cafe\u0301\x07") == "cafe\u0301\x07"
    assert set(report(filters)) == {"line endings", "length"}


def test_examples_are_few_short_and_show_the_place() -> None:
    filters = cleaner()
    for n in range(20):
        filters.text("x" * 5_000 + f"\x07 bell {n}" + "y" * 5_000)
    line = report(filters)["control characters"]
    assert line.changed == 20 and len(line.examples) == 3
    assert all("\x07 bell" in example and len(example) <= 90 for example in line.examples)


@given(st.text(max_size=200))
def test_cleaning_twice_changes_nothing_more(text: str) -> None:
    once = cleaner().text(text)
    assert once is None or cleaner().text(once) == once


def turns(*contents: str) -> list[Message]:
    return [Message(("user", "assistant")[place % 2], text) for place, text in enumerate(contents)]


def chat(*contents: str) -> ChatRecord:
    return ChatRecord(messages=turns(*contents))


def ranked(ranks: list[int], **rest: Any) -> PreferenceRecord:
    return PreferenceRecord(messages=turns("q"), completions=["a", "b"], ranks=ranks, **rest)


def test_texts_of_every_kind_are_changed_and_the_rest_stays() -> None:
    filters = cleaner()
    dirty, clean = "a\r\nb\x07", "a\nb"
    assert filters.clean(chat(dirty, dirty)) == chat(clean, clean)
    assert filters.clean(
        PreferenceRecord(messages=turns(dirty), completions=[dirty, "c"], ranks=[2, 1], annotator="x", source="s")
    ) == PreferenceRecord(messages=turns(clean), completions=[clean, "c"], ranks=[2, 1], annotator="x", source="s")
    assert filters.clean(PromptRecord(messages=turns(dirty), answer=dirty)) == PromptRecord(
        messages=turns(clean), answer=clean
    )
    labelled = LabelledRecord(task="pair", texts=[dirty, "c"], label="yes\r")
    assert filters.clean(labelled) == LabelledRecord(task="pair", texts=[clean, "c"], label="yes\r")
    assert report(filters)["line endings"].changed == report(filters)["control characters"].changed == 4


def test_duplicates_of_records_are_judged_without_source_and_meta_but_with_ranks() -> None:
    filters = cleaner()
    records = (ranked([1, 2]), ranked([1, 2], source="x", meta={"n": 1}), ranked([2, 1]))
    assert [filters.clean(record) is not None for record in records] == [True, False, True]


@pytest.mark.parametrize(
    ("setting", "bad", "good"),
    [
        ({"drop_empty_answers": True}, chat("q", " \n"), chat("q", "a")),
        ({"drop_bad_roles": True}, chat("q"), chat("q", "a")),
        ({"drop_bad_roles": True}, chat("q", "a", "q2"), chat("q", "a", "q2", "a2")),
        ({"drop_ties": True}, ranked([1, 1]), ranked([1, 2])),
        ({"max_line": 10}, TextRecord(text="a\n" + "b" * 11), TextRecord(text="a\n" + "b" * 10)),
    ],
)
def test_what_a_fix_is_for_is_dropped_only_on_request(setting: dict[str, Any], bad: Any, good: Any) -> None:
    assert cleaner().clean(bad) is not None
    filters = cleaner(**setting)
    assert filters.clean(bad) is None and filters.clean(good) == good
    assert sum(line.removed for line in report(filters).values()) == 1


def test_a_prompt_stands_once_and_an_answer_as_often_as_allowed() -> None:
    filters = cleaner(unique_prompts=True, max_same_answer=2)
    records = [chat("q1", "yes"), chat("q1", "no"), chat("q2", "yes"), chat("q3", "yes"), chat("q4", "no")]
    assert [filters.clean(record) is not None for record in records] == [True, False, True, False, True]
    assert (report(filters)["prompts"].removed, report(filters)["same answers"].removed) == (1, 1)


def test_documents_have_no_prompt_to_share() -> None:
    filters = cleaner(unique_prompts=True, max_same_answer=1)
    assert filters.text("one") and filters.text("two")


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("see https://a.example/b?c=d#e, or www.b.example.", "see <url>, or <url>."),
        ("(http://a.example/x)", "(<url>)"),
        ("見て https://a.example/道。次", "見て <url>。次"),
        ("write to Jo.Doe+x@mail.a.example.", "write to <email>."),
        ("3 @ 5, @name, a@b", "3 @ 5, @name, a@b"),
    ],
)
def test_addresses_are_masked_on_request(text: str, masked: str) -> None:
    assert cleaner(mask_urls=True, mask_emails=True).text(text) == masked
    assert cleaner().text(text) == text


@pytest.mark.parametrize("text", ["it’s “fine” – café", "Éric a été là", "中文和日本語のテキスト", "naïve 😀"])
def test_mojibake_is_repaired_on_request_and_good_text_stays(text: str) -> None:
    broken = "".join(bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in text.encode())
    filters = cleaner(repair_mojibake=True)
    assert filters.text(broken) == text != broken and filters.text("x " + text) == "x " + text
    assert report(filters)["mojibake"].changed == 1


def test_records_that_repeat_an_evaluation_are_dropped(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    folder = tmp_path / "datasets" / "exam"
    question = "Which of the two rivers that meet below the old town carries more water in spring and why?"
    dataset_of(folder, [question, "how many legs has a cat"], [])
    info = {"name": "exam", "kind": "text", "digest": "0", "records": {"train": 2}}
    (folder / "dataset.json").write_text(json.dumps(info))
    filters = Cleaner(Build(sources=[], decontaminate=["exam"]), tmp_path, workspace)
    assert filters.clean(TextRecord(text=f"Quiz! {question.upper()} Ask again.")) is None
    assert filters.clean(TextRecord(text="Which of the two rivers that meet below the old town is wide?")) is not None
    assert filters.clean(chat("How many legs has a cat?", "Four.")) is None
    assert filters.clean(chat("Say how many legs has a cat, and a dog?", "Four.")) is not None
    assert {line.name: line.removed for line in filters.filters()}["contamination"] == 2


def test_an_unknown_evaluation_set_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'exm'"):
        Cleaner(Build(sources=[], decontaminate=["exm"]), tmp_path, Workspace(tmp_path))
