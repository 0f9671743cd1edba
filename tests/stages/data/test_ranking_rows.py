"""Rankings in tables, a row for each completion: what is read, and what is said of rows that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.data.sources import Corpus
from stages.store.records import Message, PreferenceRecord, Record


def read(path: Path, text: str) -> tuple[list[Record], Corpus]:
    path.write_text(text)
    corpus = Corpus([str(path)], 0, kind="preference")
    corpus.survey(lambda done, total: None)
    return list(corpus.documents(lambda done, total: None)), corpus


def test_a_table_that_somebody_made_by_hand_is_read_with_its_other_columns(tmp_path: Path) -> None:
    table = "ranking;prompt;completion;rank;team\n1;Why?;Because.;2;red\n1;Why?;It floats.;1;red\n2;How?;So.;1;\n"
    (first, second), corpus = read(tmp_path / "hand.csv", table)
    assert first == PreferenceRecord(
        messages=[Message("user", "Why?")],
        completions=["Because.", "It floats."],
        ranks=[2, 1],
        source="hand.csv",
        meta={"team": "red"},
    )
    assert isinstance(second, PreferenceRecord) and second.completions == ["So."]
    assert not corpus.problems


@pytest.mark.parametrize(
    ("rows", "field", "said"),
    [
        ("1,Why?,a,first,\n1,Why?,b,2,", "rank", "This is not a number."),
        ("1,Why?,a,1.5,\n1,Why?,b,2,", "rank", "This is not a whole number."),
        ("1,Why?,a,1,7\n1,Why?,b,2,", "score", "This is not a number."),
        ("1,Why?,a,1,\n1,Why?,b,3,", "ranks", "These are not 2 ranks from 1 to 2."),
        ("1,,a,1,\n1,,b,2,", "prompt", "This ranking has no prompt."),
    ],
)
def test_a_ranking_that_cannot_be_read_is_named_with_the_line_in_which_it_begins(
    tmp_path: Path, rows: str, field: str, said: str
) -> None:
    table = f"ranking,prompt,completion,rank,score\n0,Ok?,yes,1,\n0,Ok?,no,2,\n{rows}\n"
    (good,), corpus = read(tmp_path / "damaged.csv", table)
    assert isinstance(good, PreferenceRecord) and good.ranks == [1, 2]
    assert [(problem.line, problem.field, problem.message) for problem in corpus.problems] == [(4, field, said)]


def test_messages_that_are_no_json_are_said_to_be_so(tmp_path: Path) -> None:
    table = 'ranking,messages,completion,rank\n1,"[{""role"":",a,1\n2,"[{""role"":""user"",""content"":""Hi""}]",a,1\n'
    (good,), corpus = read(tmp_path / "damaged.csv", table)
    assert isinstance(good, PreferenceRecord) and good.messages == [Message("user", "Hi")]
    assert [(problem.line, problem.field, problem.message) for problem in corpus.problems] == [
        (2, "messages", "This is not JSON.")
    ]
