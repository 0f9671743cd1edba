"""Records: what is written is read again, whatever it holds and of whichever kind, and damage is named."""

from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.data import records
from stages.data.records import RecordWriter, read_shards, read_texts
from stages.store.datasets import Kind
from stages.store.errors import UserError, WorkFailed
from stages.store.records import (
    KINDS,
    ChatRecord,
    LabelledRecord,
    Message,
    PreferenceRecord,
    PromptRecord,
    Record,
    TextRecord,
    texts_in,
)
from tests.stages.data.parts import dataset_of

TEXT = st.text(max_size=50)
META = st.dictionaries(TEXT, st.one_of(TEXT, st.integers(-(2**63), 2**63), st.none(), st.lists(TEXT)), max_size=3)
ORIGIN = {"source": TEXT, "meta": META}
MESSAGES = st.lists(
    st.builds(
        Message,
        role=st.sampled_from(["system", "user", "assistant", "tool"]),
        content=TEXT,
        train=st.sampled_from([None, True, False]),
    ),
    max_size=3,
)
RANKS = st.lists(st.integers(1, 9), max_size=4)
SCORES = st.none() | st.lists(st.floats(allow_nan=False), max_size=4)
RECORDS: dict[Kind, st.SearchStrategy[Record]] = {
    "text": st.builds(TextRecord, text=TEXT, **ORIGIN),
    "chat": st.builds(ChatRecord, messages=MESSAGES, **ORIGIN),
    "preference": st.builds(
        PreferenceRecord,
        messages=MESSAGES,
        completions=st.lists(TEXT),
        ranks=RANKS,
        scores=SCORES,
        annotator=TEXT,
        **ORIGIN,
    ),
    "prompts": st.builds(PromptRecord, messages=MESSAGES, answer=st.none() | TEXT, **ORIGIN),
    "labelled": st.builds(
        LabelledRecord,
        task=st.sampled_from(["classify", "pair", "choice", "tokens"]),
        texts=st.lists(TEXT),
        label=st.none() | TEXT,
        labels=st.none() | st.lists(TEXT),
        **ORIGIN,
    ),
}


def write(folder: Path, rows: list[Record], kind: Kind = "text") -> RecordWriter:
    with RecordWriter(folder, "train", kind) as writer:
        for row in rows:
            writer.write(row)
    return writer


@pytest.mark.parametrize("kind", KINDS)
def test_records_come_back_as_they_were(tmp_path: Path, kind: Kind) -> None:
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20, deadline=None)
    @given(st.lists(RECORDS[kind], max_size=20))
    def come_back(rows: list[Record]) -> None:
        for old in tmp_path.iterdir():
            old.unlink()
        writer = write(tmp_path, rows, kind)
        assert list(read_shards(sorted(tmp_path.iterdir()))) == rows
        texts = [text for row in rows for text in texts_in(row)]
        assert writer.records == len(rows)
        assert writer.characters == sum(map(len, texts))
        assert writer.bytes == sum(len(text.encode()) for text in texts)

    come_back()


def test_a_record_of_another_kind_is_a_mistake_of_ours(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="TextRecord among records of kind chat"):
        write(tmp_path, [TextRecord(text="a")], "chat")


def test_files_from_before_kinds_are_read_as_text(tmp_path: Path) -> None:
    schema = pa.schema([("text", pa.string()), ("source", pa.string()), ("meta", pa.string())])
    rows = [{"text": "a", "source": "s", "meta": '{"n":1}'}]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "train-00000.parquet")
    assert list(read_shards([tmp_path / "train-00000.parquet"])) == [TextRecord(text="a", source="s", meta={"n": 1})]


def test_texts_of_another_kind_are_refused_by_name(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path / "d", ["a"], [])
    chat = dataset._replace(info=msgspec.structs.replace(dataset.info, kind="chat"))
    with pytest.raises(UserError, match="holds records of kind chat"):
        read_texts(chat, "train")


def test_row_groups_and_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "GROUP_ROWS", 10)
    monkeypatch.setattr(records, "SHARD_BYTES", 1_000)
    rows: list[Record] = [TextRecord(text="12345", source="s", meta={"n": n}) for n in range(95)]
    digest = write(tmp_path, rows).digest()
    shards = sorted(tmp_path.iterdir())
    assert len(shards) > 3 and [path.name for path in shards] == [f"train-{n:05d}.parquet" for n in range(len(shards))]
    assert all(pq.ParquetFile(path).metadata.row_group(0).num_rows <= 10 for path in shards)
    assert list(read_shards(shards)) == rows
    monkeypatch.undo()
    assert write(tmp_path / "other", rows).digest() == digest


def test_the_digest_sees_every_part_of_a_record_and_their_order(tmp_path: Path) -> None:
    one, two = TextRecord(text="a", source="s", meta={"x": 1, "y": 2}), TextRecord(text="b", source="s")
    replace = msgspec.structs.replace
    variants: list[list[Record]] = [
        [one, two],
        [two, one],
        [one],
        [replace(one, text="ab"), two],
        [replace(one, source="t"), two],
        [replace(one, meta={}), two],
    ]
    digests = [write(tmp_path / str(n), rows).digest() for n, rows in enumerate(variants)]
    assert len(set(digests)) == len(variants)
    assert write(tmp_path / "again", [replace(one, meta={"y": 2, "x": 1}), two]).digest() == digests[0]


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"x" * 900])
def test_a_damaged_file_is_named(tmp_path: Path, damage: object) -> None:
    write(tmp_path, [TextRecord(text="text " * 100, source="s")])
    path = tmp_path / "train-00000.parquet"
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]  # a parameter that mypy sees as an object
    with pytest.raises(WorkFailed, match=r"train-00000\.parquet is damaged"):
        list(read_shards([path]))
