"""Looking at records by the verbs of the desk: pages, full records, search, filters, statistics, damage."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.data import browse, records, shelf
from stages.data.records import RecordWriter
from stages.desk import Cancelled, Job
from stages.store.datasets import DatasetInfo, Kind
from stages.store.errors import UserError, WorkFailed
from stages.store.preview import LINE, preview
from stages.store.records import (
    ChatRecord,
    LabelledRecord,
    Message,
    PreferenceRecord,
    PromptRecord,
    Record,
    TextRecord,
)
from stages.store.workspace import Workspace
from tests.stages.data.test_records import RECORDS

ASK = Message("user", "What is the sky?")
CHAT = [
    ChatRecord(messages=[ASK, Message("assistant", "Blue.")], source="a.json", meta={"family": "colours", "n": 1}),
    ChatRecord(messages=[Message("system", "Be brief."), ASK, Message("assistant", "Grau.")], source="b.json"),
    ChatRecord(messages=[ASK, Message("assistant", "GREEN, sometimes.")], meta={"family": ["odd", "colours"]}),
]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace").ensure()


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row groups of seven records and files of three groups, so that every boundary is met."""
    monkeypatch.setattr(records, "GROUP_ROWS", 7)
    monkeypatch.setattr(records, "SHARD_BYTES", 2_000)


def make(
    workspace: Workspace, name: str, train: Sequence[Record], val: Sequence[Record] = (), kind: Kind = "text"
) -> None:
    """A dataset of exactly these records."""
    folder, writers = workspace.datasets / name, {}
    for split, some in (("train", train), ("val", val)):
        with RecordWriter(folder / "records", split, kind) as writers[split]:
            for record in some:
                writers[split].write(record)
    digest = hashlib.sha256("".join(writer.digest() for writer in writers.values()).encode()).hexdigest()
    counts = {split: writer.records for split, writer in writers.items()}
    (folder / "dataset.json").write_bytes(
        msgspec.json.encode(DatasetInfo(name=name, kind=kind, digest=digest, records=counts))
    )


def numbered(count: int) -> list[Record]:
    return [TextRecord(text=f"number {n}", source=f"file{n % 3}.txt") for n in range(count)]


def job(workspace: Workspace) -> Job:
    return Job(workspace)


def shown(answer: dict[str, Any]) -> list[tuple[int, str]]:
    return [(number, "".join(text for text, _ in pieces)) for number, pieces in answer["rows"]]


@pytest.mark.parametrize(("start", "count"), [(0, 5), (5, 9), (95, 30), (0, 200), (100, 5), (-3, 2)])
def test_a_page_is_these_records_in_order(workspace: Workspace, start: int, count: int) -> None:
    make(workspace, "set", numbered(100))
    assert len(list((workspace.datasets / "set" / "records").glob("train-*"))) > 2
    answer = browse.page(job(workspace), dataset="set", split="train", start=start, count=count)
    first = max(0, start)
    assert answer["total"] == 100
    assert shown(answer) == [(n, f"number {n}") for n in range(first, min(100, first + count))]


@pytest.mark.parametrize("kind", RECORDS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_records_of_every_kind_come_back_whole(tmp_path_factory: Any, kind: Kind, data: st.DataObject) -> None:
    workspace = Workspace(tmp_path_factory.mktemp("any")).ensure()
    written = data.draw(st.lists(RECORDS[kind], max_size=20))
    make(workspace, "set", written, kind=kind)
    answer = browse.read(job(workspace), dataset="set", split="train", start=0, count=50)
    assert [entry["record"] for entry in answer["records"]] == [msgspec.to_builtins(record) for record in written]
    assert browse.statistics(job(workspace), dataset="set", split="train")["records"] == len(written)
    assert len(shown(browse.page(job(workspace), dataset="set", split="train", start=0, count=50))) == len(written)


def test_a_long_text_is_cut_and_says_by_how_much(workspace: Workspace) -> None:
    make(workspace, "set", [TextRecord(text="x" * 5_000)])
    (entry,) = browse.read(job(workspace), dataset="set", split="train", start=0, shown=1_000)["records"]
    assert (len(entry["record"]["text"]), entry["cut"]) == (1_000, 4_000)
    (entry,) = browse.read(job(workspace), dataset="set", split="train", start=0, shown=0)["records"]
    assert (len(entry["record"]["text"]), entry["cut"]) == (5_000, 0)


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (TextRecord(text="a\nb"), "a\nb"),
        (CHAT[0], "user What is the sky?  assistant Blue.  "),
        (
            PreferenceRecord(messages=[ASK], completions=["no", "yes"], ranks=[2, 1]),
            "user What is the sky?   1. yes 2. no",
        ),
        (PromptRecord(messages=[ASK], answer="blue"), "user What is the sky?   = blue"),
        (LabelledRecord(task="pair", texts=["p", "h"], label="entails"), "entails  p ¦ h"),
        (LabelledRecord(task="tokens", texts=["Ann", "ran"], labels=["PER", "O"]), "PER O  Ann ¦ ran"),
    ],
)
def test_a_record_in_one_line(record: Record, line: str) -> None:
    assert "".join(text for text, _ in preview(record)) == line


def test_the_line_of_a_huge_record_is_short() -> None:
    huge = PreferenceRecord(messages=[Message("user", "x" * 10**6)] * 9, completions=["y" * 10**6] * 9, ranks=[1] * 9)
    assert sum(len(text) for text, _ in preview(huge)) < 3 * LINE


@pytest.mark.parametrize(
    ("text", "start", "step", "at", "wrapped"),
    [
        ("number 41", 0, 1, 41, False),
        ("NUMBER 41", 0, 1, 41, False),
        ("number 41", 42, 1, 41, True),
        ("number 41", 41, 1, 41, False),
        ("number 41", 40, -1, 41, True),
        ("number 4", 50, -1, 49, False),
        ("number 4", 50, 1, 4, True),
        ("number 7", 8, 1, 70, False),
        ("nothing", 3, 1, None, False),
    ],
)
def test_search_finds_the_next_place_and_goes_around_the_end(
    workspace: Workspace, text: str, start: int, step: int, at: int | None, wrapped: bool
) -> None:
    make(workspace, "set", numbered(100))
    found = browse.search(job(workspace), dataset="set", split="train", text=text, start=start, step=step)
    assert found == {"at": at, "wrapped": wrapped}


def test_search_stays_within_the_filter(workspace: Workspace) -> None:
    make(workspace, "set", numbered(100))
    ask: dict[str, Any] = {"dataset": "set", "split": "train", "filter": "source:file1"}  # numbers 1, 4, 7 …
    found = browse.search(job(workspace), text="number 5", start=0, **ask)
    (row,) = browse.page(job(workspace), start=found["at"], count=1, **ask)["rows"]
    assert row[0] == 52
    assert browse.search(job(workspace), text="number 50", start=0, **ask)["at"] is None


@pytest.mark.parametrize(
    ("kind", "written", "text", "found"),
    [
        ("chat", CHAT, "role:system", [1]),
        ("chat", CHAT, "-role:system", [0, 2]),
        ("chat", CHAT, "turns>2", [1]),
        ("chat", CHAT, "source:.JSON", [0, 1]),
        ("chat", CHAT, "green", [2]),
        ("chat", CHAT, '"be brief"', [1]),
        ("chat", CHAT, "meta.family:colours", [0, 2]),
        ("chat", CHAT, "meta.n:1", [0]),
        ("chat", CHAT, "length<22 sky", [0]),
        ("prompts", [PromptRecord(messages=[ASK]), PromptRecord(messages=[ASK], answer="")], "answer:yes", [1]),
        (
            "labelled",
            [
                LabelledRecord(task="classify", texts=["a"], label="pos"),
                LabelledRecord(task="tokens", texts=["b"], labels=["pos"]),
                LabelledRecord(task="classify", texts=["c"], label="positive"),
            ],
            "label:pos",
            [0, 1],
        ),
        (
            "preference",
            [PreferenceRecord(messages=[ASK], completions=["a", "b", "c"], ranks=[1, 2, 3], annotator="Eva")],
            "annotator:eva completions=3",
            [0],
        ),
    ],
)
def test_filters(workspace: Workspace, kind: Kind, written: list[Record], text: str, found: list[int]) -> None:
    make(workspace, "set", written, kind=kind)
    ask: dict[str, Any] = {"dataset": "set", "split": "train", "filter": text}
    answer = browse.page(job(workspace), start=0, count=10, **ask)
    assert [number for number, _ in answer["rows"]] == found
    assert answer["total"] == browse.count(job(workspace), **ask)["total"] == len(found)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("colour:red", "Records of kind text cannot be filtered by 'colour'. Choose source, length, meta.NAME"),
        ("role:user", "Records of kind text cannot be filtered by 'role'."),
        ("length:many", "length is compared with a number, not 'many'. For example: length>500."),
        ("source>a", "source is not a number."),
        ('"open', "The filter has a quotation mark without its partner."),
    ],
)
def test_a_filter_that_makes_no_sense_is_one_sentence(workspace: Workspace, text: str, sentence: str) -> None:
    make(workspace, "set", numbered(3))
    with pytest.raises(UserError) as caught:
        browse.count(job(workspace), dataset="set", split="train", filter=text)
    assert str(caught.value).startswith(sentence)


def test_statistics_count_what_is_there(workspace: Workspace) -> None:
    make(workspace, "set", CHAT, kind="chat")
    found = browse.statistics(job(workspace), dataset="set", split="train")
    assert (found["records"], found["characters"]) == (3, 21 + 30 + 33)
    assert found["lengths"] == {"shortest": 21, "5%": 21, "half": 30, "95%": 33, "longest": 33}
    assert found["tables"]["role"] == [("user", 3), ("assistant", 3), ("system", 1)]
    assert found["tables"]["source"] == [("a.json", 1), ("b.json", 1)]
    assert browse.statistics(job(workspace), dataset="set", split="train", filter="role:system")["records"] == 1
    assert browse.statistics(job(workspace), dataset="set", split="val")["lengths"] == {}


def test_row_groups_read_again_and_again_are_kept_up_to_a_limit(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(workspace, "set", numbered(100))
    _, reader = shelf.Shelf().split(workspace, "set", "train")
    monkeypatch.setattr(shelf, "KEPT_BYTES", 1_000)
    for start in range(100):
        assert len(list(reader.rows([start]))) == 1
    kept = list(reader._kept)
    assert kept == sorted(kept)[-len(kept) :] and 1 <= len(kept) < reader.groups
    assert kept[-1] == reader.groups - 1


def test_a_dataset_that_was_replaced_is_read_anew(workspace: Workspace) -> None:
    make(workspace, "set", numbered(5))
    ask: dict[str, Any] = {"dataset": "set", "split": "train", "start": 0, "count": 9}
    assert browse.page(job(workspace), **ask)["total"] == 5
    make(workspace, "other", numbered(8))
    (workspace.datasets / "set").rename(workspace.datasets / "gone")
    (workspace.datasets / "other").rename(workspace.datasets / "set")
    assert browse.page(job(workspace), **ask)["total"] == 8


def test_a_cancelled_search_ends(workspace: Workspace) -> None:
    make(workspace, "set", numbered(100))
    cancelled = job(workspace)
    cancelled.cancelled.set()
    with pytest.raises(Cancelled):
        browse.search(cancelled, dataset="set", split="train", text="nothing")


def test_no_such_split_and_a_damaged_file_are_sentences(workspace: Workspace) -> None:
    make(workspace, "set", numbered(50))
    with pytest.raises(UserError, match="has no split 'test'"):
        browse.page(job(workspace), dataset="set", split="test", start=0, count=1)
    path = sorted((workspace.datasets / "set" / "records").glob("train-*"))[1]
    path.write_bytes(b"PAR1 is not enough")
    (workspace.datasets / "set" / "dataset.json").touch()
    with pytest.raises(WorkFailed, match="cannot be read"):
        browse.page(job(workspace), dataset="set", split="train", start=0, count=1)


HOSTILE = ["\x00", "(", "[a", "\\", "\\Q", "*", "\u202e", "a" * 10_000, "💩", "'", "%s"]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_search_text_is_text_and_no_pattern(workspace: Workspace, text: str) -> None:
    make(workspace, "set", [TextRecord(text="plain"), TextRecord(text=f"before {text} after")])
    assert browse.search(job(workspace), dataset="set", split="train", text=text)["at"] == 1
