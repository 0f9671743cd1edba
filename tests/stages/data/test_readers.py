"""Reading: bounded lines, documents cut without loss, and a sentence for every line that is no record."""

import gzip
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.data.opening import opened
from stages.data.readers import cut_at_blank_lines, read_json_lines, read_lines, read_text, scan

LINES = st.lists(st.text(alphabet="ab é\r\u2028", max_size=12).map(lambda text: text + "\n"), max_size=30)


class Notes(list[tuple[int, str, str]]):
    """Takes note of what is refused."""

    def __call__(self, line: int, field: str, message: str) -> None:
        self.append((line, field, message))


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
    ("line", "message"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"text": ' + b'{"a":' * 100_000, "nested too deeply"),
        (b'{"text": "a", "x": NaN}', "NaN"),
        (b'{"text": -Infinity}', "NaN"),
        (b'{"text": "\\ud800"}', "surrogate"),
        (b'{"text": "\xff"}', "not UTF-8"),
        (b'{"text": "a"', "not JSON"),
        (b"plain words", "not JSON"),
        (b'{"text": 1e999}', "not JSON"),
        (b'{"text": "a", "n": ' + b"1" * 5_000 + b"}", "not JSON"),
    ],
)
def test_a_line_that_is_not_json_gets_a_sentence(line: bytes, message: str) -> None:
    notes = Notes()
    assert list(read_json_lines(io.BytesIO(line), notes)) == []
    assert notes[0][0] == 1 and message in notes[0][2]


def test_json_lines_are_read_past_marks_blank_lines_and_bad_ones() -> None:
    notes = Notes()
    file = io.BytesIO(b'\xef\xbb\xbf{"text": "one\\u2028"}\r\n\n{"text": 2\n{"text": "three"}')
    assert list(read_json_lines(file, notes)) == [(1, {"text": "one\u2028"}), (4, {"text": "three"})]
    assert [line for line, _, _ in notes] == [3]


def test_a_line_over_the_limit_is_reported_and_its_neighbours_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.data.readers.read_lines", lambda file: read_lines(file, longest=40))
    notes = Notes()
    text = io.BytesIO(b"first\n" + b"x" * 100 + b"\nlast\n")
    rows = io.BytesIO(b'{"text": "first"}\n{"text": "' + b"x" * 100 + b'"}\n{"text": "last"}\n')
    assert list(read_text(text, 1_000, notes)) == ["first\nlast\n"]
    assert [row["text"] for _, row in read_json_lines(rows, notes)] == ["first", "last"]
    assert [line for line, _, _ in notes] == [2, 2]


def test_gzip_is_read_unpacked_and_its_text_checked(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress("é\nzwei\n".encode()))
    read: list[int] = []
    with opened(path, read.append) as file:
        assert list(read_lines(file)) == [(1, "é\n".encode(), 3), (2, b"zwei\n", 5)]
    assert sum(read) == path.stat().st_size
    found = scan(path, text=True, advance=no_advance)
    assert (found.size, found.binary, found.problem) == (path.stat().st_size, False, None)
    path.write_bytes(gzip.compress(b"one\n\xff\n"))
    problem = scan(path, text=True, advance=no_advance).problem
    assert problem is not None and problem.line == 2


def test_utf_16_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("words".encode("utf-16"))
    found = scan(path, text=True, advance=no_advance)
    assert found.problem is not None and "UTF-16" in found.problem.message and not found.binary
