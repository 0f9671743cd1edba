"""Reading: bounded lines, documents cut without loss, and a sentence for every line that is no record."""

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.data.readers import cut_at_blank_lines, parse_record, read_json_lines, read_lines, read_text, scan
from stages.store.datasets import Problem
from stages.store.records import TextRecord

LINES = st.lists(st.text(alphabet="ab é\r\u2028", max_size=12).map(lambda text: text + "\n"), max_size=30)


def no_advance(count: int) -> None:
    assert count >= 0


@given(LINES, st.integers(1, 25))
def test_cutting_loses_nothing_and_keeps_to_the_limit(lines: list[str], longest: int) -> None:
    texts = list(cut_at_blank_lines(lines, longest))
    assert "".join(texts) == "".join(lines)
    assert all(0 < len(text) <= longest for text in texts)


@given(LINES)
def test_a_text_within_the_limit_stays_whole(lines: list[str]) -> None:
    assert list(cut_at_blank_lines(lines, 1_000)) == (["".join(lines)] if lines else [])


def test_a_long_text_is_cut_after_blank_lines() -> None:
    lines = "one\ntwo\n\nthree\nfour\n\nfive\n".splitlines(keepends=True)
    assert list(cut_at_blank_lines(lines, 12)) == ["one\ntwo\n\n", "three\nfour\n\n", "five\n"]


def test_a_line_ending_is_never_cut_in_two() -> None:
    assert list(cut_at_blank_lines(["abc\r\n"], 4)) == ["abc", "\r\n"]


def test_lines_split_at_newlines_alone_and_long_ones_are_passed_over() -> None:
    file = io.BytesIO("a\u2028b\x85c\n".encode() + b"x" * 50 + b"\nend")
    assert list(read_lines(file, longest=20)) == [
        (1, "a\u2028b\x85c\n".encode(), 9),
        (2, None, 51),
        (3, b"end", 3),
    ]


def test_scan_names_the_line_of_broken_utf8_across_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.data.readers.CHUNK", 3)
    path = tmp_path / "broken.txt"
    path.write_bytes("é\nüü\n".encode() + b"ok \xc3( no\nmore\n")
    found = scan(path, text=True, advance=no_advance)
    assert found.problem is not None and found.problem.line == 3
    path.write_bytes("é\nüü\n日本".encode())
    assert scan(path, text=True, advance=no_advance).problem is None
    path.write_bytes("é\n日本".encode()[:-1])
    cut_off = scan(path, text=True, advance=no_advance).problem
    assert cut_off is not None and cut_off.line == 2


@pytest.mark.parametrize(
    ("line", "field", "message"),
    [
        (b"[" * 100_000, "", "nested too deeply"),
        (b'{"text": ' + b'{"a":' * 100_000, "", "nested too deeply"),
        (b'{"text": "a", "x": NaN}', "", "NaN"),
        (b'{"text": -Infinity}', "", "NaN"),
        (b'{"text": "\\ud800"}', "", "surrogate"),
        (b'{"text": "\xff"}', "", "not UTF-8"),
        (b'{"text": "a"', "", "not JSON"),
        (b"plain words", "", "not JSON"),
        (b'{"text": 1e999}', "", "not JSON"),
        (b'["text"]', "", "not a JSON object"),
        (b'{"words": "a"}', "text", "no field 'text'; the fields are: words"),
        (b'{"text": null}', "text", "no field 'text'"),
        (b'{"text": 5}', "text", "not text"),
        (b'{"text": "a", "x": ' + b"[" * 70 + b"]" * 70 + b"}", "", "nested too deeply"),
        (b'{"text": "a", "n": ' + b"1" * 5_000 + b"}", "", "not JSON"),
    ],
)
def test_a_line_that_is_no_record_gets_a_sentence(line: bytes, field: str, message: str) -> None:
    found = parse_record(line, "text", "file")
    assert not isinstance(found, TextRecord)
    assert found[0] == field and message in found[1]


def test_what_else_a_record_holds_is_kept_in_its_meta() -> None:
    line = b'{"body": "a", "source": "web", "id": 7, "meta": {"lang": "en"}}'
    assert parse_record(line, "body", "file") == TextRecord(text="a", source="web", meta={"id": 7, "lang": "en"})
    assert parse_record(b'{"body": "a", "source": 3}', "body", "file") == TextRecord(
        text="a", source="file", meta={"source": 3}
    )


def test_json_lines_are_read_past_marks_blank_lines_and_bad_ones(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "one\\u2028"}\r\n\n{"text": 2}\n{"text": "three"}')
    problems: list[Problem] = []
    records = list(read_json_lines(path, "some.jsonl", "text", problems.append, no_advance))
    assert [record.text for record in records] == ["one\u2028", "three"]
    assert [(problem.file, problem.line, problem.field) for problem in problems] == [(str(path), 3, "text")]


def test_a_line_over_the_limit_is_reported_and_its_neighbours_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.data.readers.read_lines", lambda file: read_lines(file, longest=40))
    text, rows = tmp_path / "a.txt", tmp_path / "a.jsonl"
    text.write_bytes(b"first\n" + b"x" * 100 + b"\nlast\n")
    rows.write_bytes(b'{"text": "first"}\n{"text": "' + b"x" * 100 + b'"}\n{"text": "last"}\n')
    problems: list[Problem] = []
    assert [r.text for r in read_text(text, "a", 1_000, problems.append, no_advance)] == ["first\nlast\n"]
    assert [r.text for r in read_json_lines(rows, "a", "text", problems.append, no_advance)] == ["first", "last"]
    assert [problem.line for problem in problems] == [2, 2]
