"""Records: what is written is read again, whatever it holds, and damage is named."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.data import records
from stages.data.records import RecordWriter, TextRecord, read_shards
from stages.store.errors import WorkFailed

TEXT = st.text(max_size=50)
META = st.dictionaries(TEXT, st.one_of(TEXT, st.integers(-(2**63), 2**63), st.none(), st.lists(TEXT)), max_size=3)


def write(folder: Path, rows: list[TextRecord]) -> RecordWriter:
    with RecordWriter(folder, "train") as writer:
        for row in rows:
            writer.write(row)
    return writer


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(st.lists(st.builds(TextRecord, TEXT, TEXT, META), max_size=20))
def test_records_come_back_as_they_were(tmp_path: Path, rows: list[TextRecord]) -> None:
    for old in tmp_path.iterdir():
        old.unlink()
    writer = write(tmp_path, rows)
    assert list(read_shards(sorted(tmp_path.iterdir()))) == rows
    assert writer.records == len(rows)
    assert writer.bytes == sum(len(row.text.encode()) for row in rows)


def test_row_groups_and_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "GROUP_ROWS", 10)
    monkeypatch.setattr(records, "SHARD_BYTES", 100)
    rows = [TextRecord("12345", "s", {"n": n}) for n in range(95)]
    digest = write(tmp_path, rows).digest()
    shards = sorted(tmp_path.iterdir())
    assert [path.name for path in shards] == [f"train-{n:05d}.parquet" for n in range(5)]
    assert all(pq.ParquetFile(path).metadata.row_group(0).num_rows <= 10 for path in shards)
    assert list(read_shards(shards)) == rows
    monkeypatch.undo()
    assert write(tmp_path / "other", rows).digest() == digest


def test_the_digest_sees_every_part_of_a_record_and_their_order(tmp_path: Path) -> None:
    one, two = TextRecord("a", "s", {"x": 1, "y": 2}), TextRecord("b", "s", {})
    variants = [
        [one, two],
        [two, one],
        [one],
        [one._replace(text="ab"), two],
        [one._replace(source="t"), two],
        [one._replace(meta={}), two],
    ]
    digests = [write(tmp_path / str(n), rows).digest() for n, rows in enumerate(variants)]
    assert len(set(digests)) == len(variants)
    assert write(tmp_path / "again", [one._replace(meta={"y": 2, "x": 1}), two]).digest() == digests[0]


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"x" * 900])
def test_a_damaged_file_is_named(tmp_path: Path, damage: object) -> None:
    write(tmp_path, [TextRecord("text " * 100, "s", {})])
    path = tmp_path / "train-00000.parquet"
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]  # a parameter that mypy sees as an object
    with pytest.raises(WorkFailed, match=r"train-00000\.parquet is damaged"):
        list(read_shards([path]))
