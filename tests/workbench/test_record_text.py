"""Records as text for an editor: what comes back untouched is the same record, and a wrong heading is named."""

from __future__ import annotations

import pytest

from stages.store.errors import UserError
from stages.store.records import (
    ChatRecord,
    LabelledRecord,
    Message,
    PreferenceRecord,
    PromptRecord,
    Record,
    TextRecord,
)
from workbench.records.text import from_text, to_text

ASK = Message("user", "Why?\n\n=== user\nnot a heading\n==== nor this")
RECORDS: list[Record] = [
    TextRecord(text="=== user\nall text\n\n", source="x", meta={"a": 1}),
    ChatRecord(messages=[Message("system", ""), ASK, Message("assistant", "So.\n", train=False)], meta={"a": [1]}),
    PreferenceRecord(messages=[ASK], completions=["a", "", "c"], ranks=[2, 1, 1], scores=[1.5, 2.0, 3.0]),
    PromptRecord(messages=[ASK]),
    PromptRecord(messages=[ASK], answer="42\n"),
    LabelledRecord(task="pair", texts=["a\nb", "c"], label="two words"),
    LabelledRecord(task="tokens", texts=["Ann", "ran"], labels=["PER", "O"]),
]


@pytest.mark.parametrize("record", RECORDS)
def test_a_record_comes_back_as_it_was(record: Record) -> None:
    assert from_text(to_text(record), record) == record


def test_what_was_edited_is_taken_and_the_rest_kept() -> None:
    record = RECORDS[1]
    edited = from_text("=== user\nHow?\n=== assistant\nThus.\n=== tool\n7", record)
    assert isinstance(edited, ChatRecord)
    assert [(m.role, m.content) for m in edited.messages] == [("user", "How?"), ("assistant", "Thus."), ("tool", "7")]
    assert edited.meta == {"a": [1]}


@pytest.mark.parametrize(
    ("record", "text", "sentence"),
    [
        (RECORDS[1], "no heading", "The text does not begin with a heading."),
        (RECORDS[1], "", "The text does not begin with a heading."),
        (RECORDS[1], "=== nobody\nx", "No part of such a record is called 'nobody'."),
        (RECORDS[2], "=== completion best\nx", "No part of such a record is called 'completion best'."),
        (RECORDS[5], "=== pair x\na\n=== choice y\nb", "No part of such a record is called 'choice y'."),
    ],
)
def test_a_wrong_heading_is_named(record: Record, text: str, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        from_text(text, record)
    assert caught.value.title == sentence and caught.value.hint
