"""Real files: each folder builds with its kind and shape found, and no mutation of one ends in a traceback."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.data.records import read_records
from stages.data.sources import Corpus
from stages.store.datasets import Kind
from stages.store.errors import UserError
from stages.store.records import texts_in
from tests.stages.data.parts import build, real

FOLDERS: list[tuple[str, Kind, int, int, set[str]]] = [
    ("banking77", "labelled", 13_083, 0, {"text and label"}),
    ("dolly_sample", "chat", 12, 0, {"Dolly"}),
    ("gsm8k", "chat", 3_319, 0, {"question and answer"}),
    ("hh_rlhf", "preference", 2_312, 0, {"HH-RLHF transcripts"}),
    ("mt_bench", "prompts", 80, 2, {"MT-Bench questions"}),
    ("multilingual_books", "text", 85, 0, {""}),
    ("self_instruct", "chat", 427, 0, {"self-instruct"}),
    ("sharegpt_dummy", "chat", 500, 0, {"ShareGPT"}),
    ("tinyshakespeare", "text", 140, 0, {""}),
    ("wikitext2", "text", 166, 0, {""}),
]
"""Folder, kind, records read, problems, shapes."""


@pytest.mark.parametrize(("name", "kind", "read", "problems", "shapes"), FOLDERS, ids=[case[0] for case in FOLDERS])
def test_a_folder_builds_with_kind_and_shape_found(
    tmp_path: Path, name: str, kind: Kind, read: int, problems: int, shapes: set[str]
) -> None:
    dataset = build(tmp_path / "d", real(name))
    info = dataset.info
    assert (info.kind, info.read, info.problem_count) == (kind, read, problems)
    assert {source.shape for source in info.sources} == shapes
    removed = {line.name: line.removed for line in info.filters}
    assert removed["licences and READMEs"] == 2
    for side, count in info.records.items():
        assert sum(1 for _ in read_records(dataset, side)) == count > 0


def test_a_tokenizer_is_not_taken_for_data(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"encoder\.json does not hold records that are known"):
        build(tmp_path / "d", real("gpt2_tokenizer"))


def test_wide_characters_byte_order_marks_and_crlf_arrive_as_text(tmp_path: Path) -> None:
    dataset = build(tmp_path / "d", real("multilingual_books"), split="none", cut=0)
    texts = [text for record in read_records(dataset, "train") for text in texts_in(record)]
    assert [text[:7] for text in texts] == ["Project", "吾輩は猫である"]
    assert not any("\r" in text or "\ufeff" in text for text in texts)


def rows_of(name: str, count: int = 60) -> list[dict[str, object]]:
    """The first records of a real file, with texts of bounded length."""
    path = real(name)
    if path.suffix == ".json":
        return json.loads(path.read_bytes())[:count]
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in data.split(b"\n")[:count]]


def as_parquet(rows: list[dict[str, object]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out, row_group_size=20)
    return out.getvalue()


def as_arrow(rows: list[dict[str, object]]) -> bytes:
    out, table = io.BytesIO(), pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=20)
    return out.getvalue()


def as_table(rows: list[dict[str, object]], delimiter: str) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def head(name: str, size: int = 60_000) -> bytes:
    return real(name).read_bytes()[:size].rpartition(b"\n")[0] + b"\n"


ORIGINALS: dict[str, Callable[[], bytes]] = {
    "a.txt": lambda: head("tinyshakespeare/input.txt"),
    "ja.txt": lambda: head("multilingual_books/wagahaiwa_nekodearu_ja.txt"),
    "questions.jsonl": lambda: head("mt_bench/question.jsonl"),
    "seeds.jsonl": lambda: head("self_instruct/seed_tasks.jsonl"),
    "sums.jsonl": lambda: head("gsm8k/test.jsonl"),
    "pairs.jsonl": lambda: b"".join(
        json.dumps(r).encode() + b"\n" for r in rows_of("hh_rlhf/harmless-base_test.jsonl.gz")
    ),
    "pairs.jsonl.gz": lambda: gzip.compress(ORIGINALS["pairs.jsonl"](), mtime=0),
    "talks.json": lambda: json.dumps(rows_of("sharegpt_dummy/dummy_conversation.json"), indent=2).encode(),
    "line.json": lambda: json.dumps(rows_of("sharegpt_dummy/dummy_conversation.json")).encode(),
    "dolly.json": lambda: real("dolly_sample/dolly.json").read_bytes(),
    "banks.csv": lambda: head("banking77/test.csv", 20_000),
    "sums.csv": lambda: as_table(rows_of("gsm8k/test.jsonl"), ","),
    "sums.tsv": lambda: as_table(rows_of("gsm8k/test.jsonl"), "\t"),
    "sums.parquet": lambda: as_parquet(rows_of("gsm8k/test.jsonl")),
    "seeds.arrow": lambda: as_arrow(rows_of("self_instruct/seed_tasks.jsonl")),
}
ON_LINES = ("questions.jsonl", "seeds.jsonl", "sums.jsonl", "pairs.jsonl", "banks.csv")
"""Files in which a record is a line, so that one may say which are untouched."""


def mutated(data: bytes, draw: random.Random) -> bytes:
    """`data` with a few random edits: bytes flipped, cut out, doubled, or replaced by something awkward."""
    out = bytearray(data)
    for _ in range(draw.randint(1, 6)):
        place = draw.randrange(len(out) + 1)
        kind = draw.randrange(4)
        if kind == 0 and place < len(out):
            out[place] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del out[place : place + draw.randint(1, 200)]
        elif kind == 2:
            out[place:place] = out[place : place + draw.randint(1, 200)]
        else:
            awkward = [
                b"\xff",
                b"\0",
                b"\n",
                b"\r",
                b"\xed\xa0\x80",
                b"{" * 5_000,
                b"\\ud800",
                b'"',
                b"NaN",
                b"}",
                b"]",
            ]
            out[place:place] = draw.choice(awkward)
    return bytes(out)


def survive(path: Path, original: bytes, seed: int) -> None:
    """Read a mutation: no exception but a sentence; what is refused named by file and line; what is good kept."""
    data = mutated(original, random.Random(seed))
    path.write_bytes(data)
    corpus = Corpus([str(path)], 8_192)
    try:
        corpus.survey(lambda done, total: None)
        records = list(corpus.documents(lambda done, total: None))
    except UserError as error:
        assert path.name in str(error) and "\n" not in str(error)
        return
    for text in (text for record in records for text in texts_in(record)):
        text.encode()
    for problem in corpus.problems:
        assert problem.file == str(path) and problem.message.endswith(".")
        assert problem.line > 0 or path.suffix in (".txt", ".parquet", ".arrow", ".gz")
    if path.name in ON_LINES and corpus.kind == kinds[path.name]:
        kept = Counter(texts_in(record)[0] for record in records)
        untouched = Counter(original.splitlines(keepends=True)) & Counter(data.splitlines(keepends=True))
        for text, count in good[path.name].items():
            assert kept[text] >= min(count, untouched[lines[path.name][text]])


good: dict[str, Counter[str]] = {}
lines: dict[str, dict[str, bytes]] = {}
kinds: dict[str, Kind] = {}


def campaign(folder: Path, mutations: int) -> None:
    """So many mutations, of every form in turn."""
    made = {name: make() for name, make in ORIGINALS.items()}
    for name in ON_LINES:
        learn(folder / name, made[name])
    for seed in range(mutations):
        name = list(ORIGINALS)[seed % len(ORIGINALS)]
        survive(folder / name, made[name], seed)


def learn(path: Path, original: bytes) -> None:
    """Which line each record of an original comes from, by its first text."""
    path.write_bytes(original)
    corpus = Corpus([str(path)], 8_192)
    corpus.survey(lambda done, total: None)
    kinds[path.name], found = corpus.kind, list(corpus.found)
    good[path.name], lines[path.name] = Counter(), {}
    start = original.splitlines(keepends=True)[:1] if path.suffix == ".csv" else []
    for line in original.splitlines(keepends=True)[len(start) :]:
        path.write_bytes(b"".join([*start, line]))
        one = Corpus([str(path)], 8_192, kind=corpus.kind)
        one.survey(lambda done, total: None)
        one.found = [entry._replace(detection=found[0].detection) for entry in one.found]
        for record in one.documents(lambda done, total: None):
            text = texts_in(record)[0]
            good[path.name][text] += 1
            lines[path.name][text] = line


def test_mutated_files_never_end_in_a_traceback(tmp_path: Path) -> None:
    campaign(tmp_path, 200)


@pytest.mark.soak
def test_mutated_files_never_end_in_a_traceback_at_length(tmp_path: Path) -> None:
    campaign(tmp_path, 5_000)
