"""Following files that another process appends to, replaces, cuts, or takes back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from workbench.follow import RowFollower, TextFollower
from workbench.plots.curves import Curves


def write(path: Path, *rows: object, mode: str = "a") -> None:
    with path.open(mode) as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def steps(follower: RowFollower, limit: int = 1 << 20) -> list[int]:
    """Read to the end of the file and apply what a reader is told to."""
    found: list[int] = []
    while True:
        chunk = follower.read(limit)
        if chunk.restarted:
            found = []
        if chunk.rewind_to is not None:
            found = [step for step in found if step <= chunk.rewind_to]
        found += [row["step"] for row in chunk.rows]
        if not chunk.more:
            return found


def test_a_line_is_read_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    follower = RowFollower(path)
    assert follower.read().rows == []
    path.write_bytes(b'{"step":1}\n{"st')
    assert follower.read().rows == [{"step": 1}]
    assert follower.read() == (False, None, [], False)
    with path.open("ab") as file:
        file.write(b'ep":2}\n')
    assert follower.read().rows == [{"step": 2}]


def test_a_call_reads_a_bounded_part(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    write(path, *({"step": step} for step in range(1000)))
    follower = RowFollower(path)
    first = follower.read(1000)
    assert first.more
    assert 10 < len(first.rows) < 200
    assert [row["step"] for row in first.rows] + steps(follower, 1000) == list(range(1000))


def test_a_line_longer_than_the_part_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    write(path, {"step": 1, "text": "x" * 50_000}, {"step": 2})
    assert steps(RowFollower(path), 1000) == [1, 2]


@pytest.mark.parametrize("limit", [16, 64, 1 << 20])
def test_a_reader_that_comes_late_sees_no_row_that_was_taken_back(tmp_path: Path, limit: int) -> None:
    path = tmp_path / "rows"
    write(path, *({"step": step} for step in range(1, 8)))
    write(path, {"rewind_to": 4}, {"step": 5}, {"step": 6}, {"rewind_to": 2}, {"step": 3})
    follower = RowFollower(path)
    seen: list[int] = []
    while True:
        chunk = follower.read(limit)
        seen += [row["step"] for row in chunk.rows]
        if not chunk.more:
            break
    assert seen == [1, 2, 3]


def test_a_rewind_that_comes_later_is_told(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    write(path, {"step": 1}, {"step": 2}, {"step": 3})
    follower = RowFollower(path)
    assert steps(follower) == [1, 2, 3]
    write(path, {"rewind_to": 1}, {"step": 2}, {"step": 3}, {"rewind_to": 2})
    assert follower.read() == (False, 1, [{"step": 2}], False)


def test_a_replaced_and_a_cut_file_are_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    write(path, {"step": 1}, {"step": 2})
    follower = RowFollower(path)
    assert steps(follower) == [1, 2]
    write(tmp_path / "new", {"step": 7}, {"step": 8}, {"step": 9})
    (tmp_path / "new").replace(path)
    assert follower.read() == (True, None, [{"step": 7}, {"step": 8}, {"step": 9}], False)
    write(path, {"step": 5}, mode="w")
    assert follower.read() == (True, None, [{"step": 5}], False)
    path.unlink()
    assert follower.read().restarted
    write(path, {"step": 6})
    assert follower.read().rows == [{"step": 6}]


def test_lines_that_are_no_rows_are_counted_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(
        b'{"step":1}\nnot json\n[1]\n\n"text"\n{"step":2}\n\xff\xfe\n' + b"[" * 5000 + b'\n{"step":3,"x":"\\ud800"}\n'
    )
    follower = RowFollower(path)
    assert [row["step"] for row in follower.read().rows][:2] == [1, 2]
    assert follower.unreadable >= 5


def test_text_follows_its_end_and_never_splits_a_character(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"begin\n" * 100 + "grün €\n".encode())
    follower = TextFollower(path, tail=20)
    restarted, text = follower.read()
    assert restarted
    assert text.endswith("grün €\n")
    assert text.startswith("begin\n")
    euro = "€".encode()
    for byte in (euro[:1], euro[1:2]):
        with path.open("ab") as file:
            file.write(byte)
        assert follower.read() == (False, "")
    with path.open("ab") as file:
        file.write(euro[2:] + b"\xff!")
    assert follower.read() == (False, "€\ufffd!")
    path.write_text("new\n")
    assert follower.read() == (True, "new\n")


def test_curves_follow_rewinds_like_a_fresh_reader(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    live = Curves(path)

    def catch_up(curves: Curves) -> None:
        while curves.catch_up(5_000):
            pass

    def same_as_fresh() -> None:
        fresh = Curves(path)
        catch_up(live)
        catch_up(fresh)
        assert live.metrics() == fresh.metrics()
        for name in fresh.metrics():
            assert live.buckets(name) == fresh.buckets(name)

    write(path, *({"step": s, "time": 0.0, "train/loss": 1 / s} for s in range(1, 1001)))
    same_as_fresh()
    write(path, {"rewind_to": 997}, *({"step": s, "train/loss": 2.0, "lr": 0.1} for s in range(998, 1500)))
    same_as_fresh()
    write(path, {"rewind_to": 3}, {"step": 4, "train/loss": 9.0})
    same_as_fresh()
    assert [bucket.low for bucket in live.buckets("train/loss")] == [1.0, 1 / 2, 1 / 3, 9.0]
    assert live.metrics() == ["train/loss"]


def test_curves_leave_out_what_is_no_number(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"step":1,"a":1,"b":"x","c":null,"d":true}\n{"step":"2","a":5}\n{"a":6}\n'
        '{"step":3,"a":2.5,"e":[1]}\n{"step":4,"a":' + "9" * 400 + '}\n{"step":' + "9" * 400 + ',"a":1.5}\n'
    )
    curves = Curves(path)
    while curves.catch_up():
        pass
    assert curves.metrics() == ["a"]
    assert curves.latest("a") == (3, 2.5)
