"""Rows of every form: the same records out of each, and damage that costs the record it is in."""

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.data.find_files import Form
from stages.data.rows import read_rows

Row = dict[str, Any]
ROWS: list[Row] = [
    {"prompt": 'Say "a, b"\nand c', "completion": "a\tb", "n": "1"},
    {"prompt": "Ünïcode 日本 \u2028 end", "completion": "x" * 300_000, "n": "2"},
    {"prompt": "last", "completion": "done", "n": "3"},
]


def read(path: Path, form: Form) -> tuple[list[Row], list[tuple[int, str, str]]]:
    notes: list[tuple[int, str, str]] = []
    rows = read_rows(path, form, lambda *note: notes.append(note), lambda count: None)
    return [row for _, row in rows], notes


def numbered(path: Path, form: Form) -> tuple[list[int], list[int]]:
    """The numbers of the rows, and those of what was refused."""
    notes: list[tuple[int, str, str]] = []
    rows = read_rows(path, form, lambda *note: notes.append(note), lambda count: None)
    return [number for number, _ in rows], [number for number, _, _ in notes]


def table(delimiter: str, end: str) -> bytes:
    import csv

    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end)
    writer.writerows([list(ROWS[0]), *(row.values() for row in ROWS)])
    return out.getvalue().encode()


def parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), out, row_group_size=2)
    return out.getvalue()


def arrow(*, stream: bool) -> bytes:
    out = io.BytesIO()
    batches = pa.Table.from_pylist(ROWS).to_batches()
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(out, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return out.getvalue()


LINES = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)
BOM = b"\xef\xbb\xbf"
FORMS: list[tuple[str, Form, Callable[[], bytes]]] = [
    ("JSON lines", "jsonl", lambda: BOM + LINES.replace(b"\n", b"\r\n")),
    ("a list", "json", lambda: json.dumps(ROWS).encode()),
    ("an indented list", "json", lambda: BOM + json.dumps(ROWS, indent=2, ensure_ascii=False).encode()),
    ("an object with a list", "json", lambda: json.dumps({"version": [1, {"a": 2}], "data": ROWS}).encode()),
    ("lines called .json", "json", lambda: LINES),
    ("indented objects", "json", lambda: b"\n".join(json.dumps(row, indent=1).encode() for row in ROWS)),
    ("CSV", "csv", lambda: BOM + table(",", "\n")),
    ("CSV with CRLF", "csv", lambda: table(",", "\r\n")),
    ("CSV with semicolons", "csv", lambda: table(";", "\n")),
    ("TSV", "tsv", lambda: table("\t", "\n")),
    ("Parquet", "parquet", parquet),
    ("an Arrow stream", "arrow", lambda: arrow(stream=True)),
    ("an Arrow file", "arrow", lambda: arrow(stream=False)),
]


@pytest.mark.parametrize(("form", "make"), [case[1:] for case in FORMS], ids=[case[0] for case in FORMS])
def test_every_form_gives_the_same_rows(tmp_path: Path, form: Form, make: Callable[[], bytes]) -> None:
    path = tmp_path / "file"
    path.write_bytes(make())
    assert read(path, form) == (ROWS, [])
    if form not in ("parquet", "arrow"):
        path.write_bytes(gzip.compress(make()))
        assert read(path, form) == (ROWS, [])


def test_a_single_object_is_one_record(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text(json.dumps({"messages": [{"role": "user", "content": "Hi"}]}, indent=1))
    assert read(path, "json") == ([{"messages": [{"role": "user", "content": "Hi"}]}], [])


def test_several_lists_in_an_object_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "two.json"
    path.write_text('{"train": [{"a": 1}], "test": [{"a": 2}]}')
    _, notes = read(path, "json")
    assert len(notes) == 1 and "several lists (train, test)" in notes[0][2]


def damaged(rows: list[str], place: int, bad: str) -> str:
    return "".join([*rows[:place], bad, *rows[place + 1 :]])


JSON_ROWS = [f'  {{"prompt": "p{n}", "completion": ["a", {{"b": "c{n}"}}]}},\n' for n in range(9)]


@pytest.mark.parametrize(
    "bad",
    [
        '  {"prompt": "p4, "completion": ["a"]},\n',
        '  {"prompt": "p4", "completion": ["a", {"b": "c4"]},\n',
        '  {"prompt": "p4", "completion": ["a", {"b": "c4"}]}},\n',
        '  {"prompt": "p4", "completion": ["a", {"b": "c4"}},\n',
        '  {"prompt": NaN},\n',
        '  "prompt": "p4"},\n',
        '  {"prompt": "\\ud800"},\n',
        '  {"prompt": "p4"}]\n',
        "  " + '{"a":' * 5_000 + "},\n",
    ],
)
def test_damage_in_a_list_costs_the_record_it_is_in(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "list.json"
    path.write_text("[\n" + damaged(JSON_ROWS, 4, bad).rstrip(",\n") + "\n]\n")
    rows, notes = read(path, "json")
    found = [row["prompt"] for row in rows if row.get("prompt") != "p4"]
    assert found == [f"p{n}" for n in range(9) if n != 4]
    assert notes and notes[0][0] in (6, 7)


def test_damage_in_a_list_on_one_line_costs_little(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    rows = [f'{{"prompt": "p{n}", "completion": "c{n}"}}' for n in range(9)]
    rows[4] = '{"prompt": "p4, "completion": "c4"}'
    path.write_text("[" + ", ".join(rows) + "]")
    found, notes = read(path, "json")
    assert {f"p{n}" for n in (*range(4), *range(6, 9))} <= {row.get("prompt") for row in found}
    assert notes


def test_a_file_that_ends_within_its_list_says_so_and_keeps_what_it_had(tmp_path: Path) -> None:
    path = tmp_path / "cut.json"
    path.write_text("[\n" + "".join(JSON_ROWS)[:-20])
    rows, notes = read(path, "json")
    assert [row["prompt"] for row in rows] == [f"p{n}" for n in range(8)]
    assert {line for line, _, _ in notes} <= {10, 11}


CSV_ROWS = ["prompt,completion\n", *(f'"p{n}, q",c{n}\n' for n in range(1, 9))]


@pytest.mark.parametrize("bad", ['"p4,c4\n', '"p4"x,c4\n', "p4\n", "p4,c4,d4\n", 'p4,"c4\n'])
def test_a_bad_row_of_a_table_costs_one_line(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(damaged(CSV_ROWS, 4, bad))
    rows, notes = read(path, "csv")
    assert [row["completion"] for row in rows] == [f"c{n}" for n in range(1, 9) if n != 4]
    assert [line for line, _, _ in notes] == [5]


def test_a_quote_that_starts_a_field_of_a_tsv_is_a_character(tmp_path: Path) -> None:
    path = tmp_path / "table.tsv"
    path.write_text('text\tlabel\n"Yes he said\tx\n"quoted ""a"""\ty\nplain\tz\n')
    rows, notes = read(path, "tsv")
    assert [row["text"] for row in rows] == ['"Yes he said', 'quoted "a"', "plain"] and notes == []


def test_columns_without_a_name_or_with_one_twice_get_one(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("a,a,\n1,2,3\n")
    assert read(path, "csv")[0] == [{"a": "1", "a 2": "2", "column 3": "3"}]


def test_a_table_of_too_many_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    path.write_text(",".join(f"c{n}" for n in range(20_000)) + "\n")
    rows, notes = read(path, "csv")
    assert rows == [] and "20,000 columns" in notes[0][2]


def test_class_names_of_a_saved_dataset_stand_for_their_numbers(tmp_path: Path) -> None:
    features = {"label": {"names": ["neg", "pos"], "_type": "ClassLabel"}}
    features["tags"] = {"feature": {"names": ["O", "B"], "_type": "ClassLabel"}, "_type": "Sequence"}
    schema = pa.schema(
        [("text", pa.string()), ("label", pa.int64()), ("tags", pa.list_(pa.int64()))],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist([{"text": "a", "label": 1, "tags": [0, 1]}], schema=schema), path)
    assert read(path, "parquet")[0] == [{"text": "a", "label": "pos", "tags": ["O", "B"]}]


def test_values_that_json_cannot_hold_become_plain(tmp_path: Path) -> None:
    import datetime

    path = tmp_path / "a.parquet"
    day = datetime.date(2024, 2, 3)
    pq.write_table(pa.Table.from_pylist([{"text": "a", "day": day, "blob": b"\0\1", "x": float("nan")}]), path)
    assert read(path, "parquet")[0] == [{"text": "a", "day": "2024-02-03", "blob": "AAE=", "x": None}]


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_a_damaged_table_is_named(tmp_path: Path, form: Form) -> None:
    path = tmp_path / "a"
    data = parquet() if form == "parquet" else arrow(stream=True)
    for broken in (b"", b"PAR1" * 5, data[: len(data) // 2], data[:-3]):
        path.write_bytes(broken)
        _, notes = read(path, form)
        assert notes or form == "arrow"
        assert not notes or "damaged" in notes[0][2]


def test_messages_of_openassistant_become_trees(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [
        {"message_tree_id": tree, "message_id": f"{tree}{n}", "parent_id": parent, "text": str(n), "role": role}
        for tree in "ab"
        for n, (parent, role) in enumerate([(None, "prompter"), (f"{tree}0", "assistant"), (f"{tree}0", "assistant")])
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, notes = read(path, "jsonl")
    assert notes == [] and [tree["message_tree_id"] for tree in found] == ["a", "b"]
    assert [reply["text"] for reply in found[0]["prompt"]["replies"]] == ["1", "2"]
    assert numbered(path, "jsonl") == ([1, 4], [])


def test_a_damaged_gzip_file_keeps_what_came_before(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    lines = b"".join(json.dumps({"text": f"{n * n:x}" * 50}).encode() + b"\n" for n in range(20_000))
    packed = gzip.compress(lines)
    path.write_bytes(packed[: len(packed) // 2])
    rows, notes = read(path, "jsonl")
    assert len(rows) > 1_000 and len(notes) == 1 and "cannot be unpacked" in notes[0][2]


def test_a_gzip_file_that_unpacks_without_end_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.data.opening.FREE", 1_000_000)
    path = tmp_path / "bomb.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "' + b"x" * 30_000_000 + b'"}\n'))
    rows, notes = read(path, "jsonl")
    assert rows == [] and "200 times its size" in notes[0][2]
