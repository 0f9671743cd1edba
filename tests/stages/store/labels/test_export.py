"""Rankings for other programs: what each format carries, and what it says it cannot."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.data.shapes.base import Fields
from stages.data.shapes.preference import SHAPES
from stages.store.labels import Labels
from stages.store.labels.export import FORMATS, Format, export
from stages.store.labels.judged import chat_of, judged, preference_of
from stages.store.records import Message, PreferenceRecord
from tests.stages.store.labels.conftest import tasks

RECORD = PreferenceRecord(
    messages=[Message("user", "Which?")],
    completions=["good", "fair", "also fair", "bad"],
    ranks=[1, 2, 2, 4],
    scores=[7, 5, 5, 1],
    annotator="ada",
    source="here",
    meta={"part": "reward"},
)

hostile = st.text(st.characters(codec="utf-8"), max_size=30)
records = st.builds(
    lambda texts, question: msgspec.structs.replace(
        RECORD,
        completions=texts,
        ranks=list(range(1, len(texts) + 1)),
        scores=None,
        messages=[Message("user", question)],
    ),
    st.lists(hostile, min_size=2, max_size=5, unique=True),
    hostile,
)


def lines(form: Format, *given: PreferenceRecord) -> tuple[str, Counter[str]]:
    lost = Counter[str]()
    return "".join(export(given, form, lost)), lost


@given(records)
def test_kway_lines_carry_everything(record: PreferenceRecord) -> None:
    text, lost = lines("kway", record, RECORD)
    read = [msgspec.json.decode(line, type=PreferenceRecord) for line in text.split("\n") if line]
    assert read == [record, RECORD]
    assert not lost


@given(records)
def test_csv_rows_carry_everything(record: PreferenceRecord) -> None:
    text, lost = lines("csv", record, RECORD)
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    of_first = [row for row in rows if row["ranking"] == "0"]
    assert [row["completion"] for row in of_first] == record.completions
    assert json.loads(of_first[0]["messages"]) == [{"role": "user", "content": record.messages[0].content}]
    assert [(row["rank"], row["score"]) for row in rows if row["ranking"] == "1"] == [
        ("1", "7"),
        ("2", "5"),
        ("2", "5"),
        ("4", "1"),
    ]
    assert not lost


@pytest.mark.parametrize("form", [form for form in FORMATS if form not in ("kway", "csv")])
def test_pairs_are_all_that_are_not_tied_and_the_loss_is_named(form: Format) -> None:
    text, lost = lines(form, RECORD)
    assert len(text.splitlines()) == 5
    assert lost == {
        "rankings of more than two completions became pairs": 1,
        "rankings lost their scores": 1,
        "ties were left out": 1,
    }


def test_the_shapes_are_those_of_trl_and_hh() -> None:
    pair = msgspec.structs.replace(RECORD, completions=["yes", "no"], ranks=[2, 1], scores=None)
    user, best, worst = (
        {"role": r, "content": c} for r, c in (("user", "Which?"), ("assistant", "no"), ("assistant", "yes"))
    )
    assert json.loads(lines("trl", pair)[0]) == {"prompt": [user], "chosen": [best], "rejected": [worst]}
    assert json.loads(lines("trl-implicit", pair)[0]) == {"chosen": [user, best], "rejected": [user, worst]}
    assert json.loads(lines("trl-text", pair)[0]) == {"prompt": "Which?", "chosen": "no", "rejected": "yes"}
    assert json.loads(lines("hh", pair)[0]) == {
        "chosen": "\n\nHuman: Which?\n\nAssistant: no",
        "rejected": "\n\nHuman: Which?\n\nAssistant: yes",
    }


def test_a_transcript_that_could_not_be_told_apart_is_left_out_by_name() -> None:
    tricky = msgspec.structs.replace(RECORD, completions=["a\n\nHuman: b", "a"], ranks=[1, 2], scores=None)
    text, lost = lines("hh", tricky)
    assert text == ""
    assert lost == {"pairs that would not be told apart in a transcript were left out": 1}


@given(records)
def test_transcripts_read_back_as_they_were_where_nothing_is_said_to_be_lost(record: PreferenceRecord) -> None:
    pair = msgspec.structs.replace(record, completions=record.completions[:2], ranks=[1, 2])
    text, lost = lines("hh", pair)
    if not lost and all([*pair.completions, *(message.content for message in pair.messages)]):
        row = json.loads(text)
        (read,) = next(shape for shape in SHAPES if shape.name == "HH-RLHF transcripts").read(Fields(row))
        assert (read.messages, read.completions, read.ranks) == (pair.messages, pair.completions, pair.ranks)


def test_labels_become_records_best_first_and_best_answers_become_chats(labels: Labels) -> None:
    chosen = labels.add_set("mine", "rank", tasks(2))
    shown = labels.next(chosen.id, "ada")
    assert shown is not None
    labels.save(shown.label("rank", "ada", ranks=[3, 1, 2, 3], note="hm"))
    tied = labels.next(chosen.id, "ada")
    assert tied is not None
    labels.save(tied.label("rank", "ada", ranks=[1, 1, 2, 2]))
    first, second = judged(labels)
    record = preference_of(first)
    assert record is not None
    texts = [one.text for one in shown.completions]
    assert (record.completions, record.ranks) == ([texts[1], texts[2], texts[0], texts[3]], [1, 2, 3, 3])
    assert record.meta["note"] == "hm" and record.meta["checkpoints"] == ["m@1"] * 4
    chat = chat_of(first, labels)
    assert chat is not None and chat.messages[-1] == Message("assistant", texts[1])
    assert chat_of(second, labels) is None
